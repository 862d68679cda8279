import torch

from isonomy.engine import hand_over


def test_hand_over_hands_on_what_it_was_given():
    a = torch.zeros(3, requires_grad=True)
    value = hand_over(torch.tensor(5.0), {a: torch.tensor([1.0, 2.0, 3.0])})
    assert value == 5
    (3 * value).backward()
    assert a.grad.tolist() == [3.0, 6.0, 9.0]
