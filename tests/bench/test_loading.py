import pytest
import torch

from isonomy import IsonomyError
from isonomy.bench.data.loading import loaded


def read(index):
    if index == 9:
        raise IsonomyError("nine.jpg (sample 9) is damaged")
    return {"image": torch.full((2,), float(index)), "label": torch.tensor(10 * index)}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_those_asked_for_and_draw_no_random_number(workers):
    state = torch.random.get_rng_state()
    batches = list(loaded(read, [[3, 1], [2], [0, 4]], workers))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [batch["label"].tolist() for batch in batches] == [[30, 10], [20], [0, 40]]
    assert torch.equal(batches[0]["image"], torch.tensor([[3.0, 3.0], [1.0, 1.0]]))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_is_the_readers_in_whichever_process_it_was_raised(workers):
    batches = loaded(read, [[1, 2], [3, 9]], workers)
    assert next(batches)["label"].tolist() == [10, 20]
    with pytest.raises(IsonomyError, match=r"^nine.jpg \(sample 9\) is damaged$"):
        next(batches)
