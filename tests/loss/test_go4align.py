import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import GO4Align
from tests.fixtures import M, close, set_up, tensor, value_of

LOSSES = [2, 0.5, 2]


def indicators(losses, totals, beta):
    p = (-beta * (tensor(losses) + tensor(totals))).softmax(0)
    return p * tensor(losses).sum() / tensor(losses)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"groups": 1}, [1.500075] * 3),
        ({"groups": 2}, [0.749963, 3.000300, 0.749963]),
        ({}, [0.749963, 3.000300, 0.749963]),
        ({"groups": 9}, [0.749963, 3.000300, 0.749963]),
        ({"groups": 3, "beta": 0.5}, [0.546514, 4.627884, 0.546514]),
        ({"groups": 1, "beta": 0.5}, [1.906971] * 3),
    ],
)
def test_known_weights(options, weights):
    S, w, _ = value_of(set_up(GO4Align(**options)), LOSSES)
    close(w, weights)
    close(S, tensor(weights) @ tensor(LOSSES), 5e-6)


@pytest.mark.parametrize(("beta", "p"), [(1e-4, [0.333317, 0.333367, 0.333317]), (0.5, [0.242895, 0.514209, 0.242895])])
def test_known_distribution(beta, p):
    w = value_of(set_up(GO4Align(groups=3, beta=beta)), LOSSES)[1]
    close(w * tensor(LOSSES) / sum(LOSSES), p)


def test_the_distribution_moves_at_every_step():
    stage = set_up(GO4Align(groups=3, beta=0.5))
    p = torch.full((3,), 1 / 3, dtype=torch.float64)
    for losses in tensor([[2, 0.5, 2], [1, 3, 0.5], [0.1, 0.2, 0.3]]):
        p = p * torch.exp(-0.5 * losses)
        p = p / p.sum()
        close(value_of(stage, losses)[1], p * losses.sum() / losses, 1e-12)
        stage.update(losses, torch.arange(3))


def test_gradients_on_a_model():
    m = M()
    balancer = isonomy.build("go4align", tasks=3)
    m.step(balancer)
    w = tensor([0.749963, 3.000300, 0.749963])
    close(m.theta.grad, w @ tensor([[2, 0], [0, -1], [2, 2]]))
    close(m.heads, w * tensor([2, -2, 6]))


positive = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=7)


@given(positive, st.integers(1, 8))
def test_groups_share_their_mean_indicator(losses, groups):
    q = indicators(losses, [0] * len(losses), 1e-3)
    w = value_of(set_up(GO4Align(groups=groups, beta=1e-3), len(losses)), losses)[1]
    assert len(w.unique()) <= groups
    close(w.sum() / q.sum(), 1, 1e-9)
    for weight in w.unique():
        close(q[w == weight].mean() / weight, 1, 1e-9)


def test_default_numbers_of_groups():
    for tasks, groups in ((1, 1), (2, 2), (3, 2), (4, 3), (12, 3)):
        w = value_of(set_up(GO4Align(), tasks), torch.arange(1, tasks + 1))[1]
        assert len(w.unique()) == groups


def test_one_task_is_plain_training():
    stage = set_up(GO4Align(), 1)
    for loss in (3.0, 0.1):
        close(value_of(stage, [loss])[1], [1], 1e-12)
        stage.update(tensor([loss]), torch.arange(1))


def test_missing_tasks_keep_their_share():
    stage = set_up(GO4Align(groups=3, beta=0.5))
    stage.update(tensor([1, 2]), torch.tensor([0, 2]))
    close(value_of(stage, LOSSES)[1], indicators(LOSSES, [1, 0, 2], 0.5), 1e-12)


def test_losses_of_zero_are_finite():
    for losses in ([0, 1, 1], [0, 0, 0]):
        assert value_of(set_up(GO4Align()), losses)[1].isfinite().all()


@pytest.mark.parametrize(("option", "value"), [("groups", 0), ("beta", -1.0), ("beta", float("nan"))])
def test_unusable_options(option, value):
    with pytest.raises(isonomy.IsonomyError, match=f"go4align: {option}="):
        isonomy.build("go4align", tasks=2, **{option: value})
