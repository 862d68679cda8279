import pytest
import torch
from torch import nn

import isonomy
from isonomy.history import blend, history, views
from isonomy.stages import Stage
from tests.fixtures import close, tensor


class Keeper(Stage):
    lazy = ("kept",)

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", None)


def row(*dtypes):
    return [torch.ones(2, 3, dtype=dtypes[0]), *(torch.ones((), dtype=dtype) for dtype in dtypes[1:])]


@pytest.mark.parametrize(
    ("dtypes", "wide"),
    [
        ((torch.float16,), torch.float32),
        ((torch.bfloat16, torch.float32), torch.float32),
        ((torch.bfloat16, torch.float64), torch.float64),
    ],
)
def test_made_once_of_zeros_and_wide_enough_for_all_tensors(dtypes, wide):
    stage, rows = Keeper(), [row(*dtypes)]
    kept = history(stage, "kept", rows, 4)
    assert kept.shape == (4, 5 + len(dtypes))
    assert kept.dtype == wide
    assert not kept.any()
    assert history(stage, "kept", rows, 4) is kept is stage.kept
    assert list(stage.state_dict()) == ["kept"]


def test_another_number_of_parameters_is_refused():
    stage = Keeper()
    history(stage, "kept", [row(torch.float32)], 1)
    with pytest.raises(isonomy.IsonomyError, match="Keeper: the shared parameters hold 7 numbers now and 6 before"):
        history(stage, "kept", [row(torch.float32, torch.float32)], 1)


def test_views_write_into_the_history():
    kept = torch.zeros(7)
    like = row(torch.float32, torch.float32)
    parts = views(kept, like)
    assert [part.shape for part in parts] == [part.shape for part in like]
    parts[1].fill_(3)
    assert kept.tolist() == [0] * 6 + [3]


def test_blend_moves_the_active_rows_alone():
    kept = tensor([[1, 1], [2, 2], [3, 3]])
    moved = blend(kept, [[tensor([5, 0])], [tensor([1, 1])]], torch.tensor([2, 0]), tensor([0.5, 0.25]))
    close(kept, [[1, 1], [2, 2], [4, 1.5]], 1e-15)
    close(moved[0][0], [4, 1.5], 1e-15)
    assert moved[0][0].data_ptr() == kept[2].data_ptr()


@pytest.mark.parametrize("name", ["db_mtl", "moco", "mtadam", "excess_mtl"])
def test_a_changed_model_is_refused_by_all_that_keep_one(name):
    x = torch.ones(1, 3)
    balancer = isonomy.build(name, 2)
    for size in (2, 3):
        trunk, heads = nn.Linear(3, size), [nn.Linear(size, 1) for _ in range(2)]
        losses = [head(trunk(x)).square().mean() + 1 for head in heads]
        if size == 3:
            with pytest.raises(isonomy.IsonomyError, match="12 numbers now and 8 before"):
                balancer(losses, shared=trunk)
        else:
            balancer(losses, shared=trunk).backward()


@pytest.mark.parametrize("name", ["graddrop", "mtadam", "excess_mtl"])
def test_complex_parameters_are_refused_by_all_that_work_on_numbers(name):
    w = torch.ones(3, dtype=torch.complex64, requires_grad=True)
    balancer = isonomy.build(name, 2)
    before = list(balancer.state_dict())
    with pytest.raises(isonomy.IsonomyError, match="shared= holds complex ones"):
        balancer([w.abs().sum(), w.real.sum()], shared=[w])
    assert list(balancer.state_dict()) == before
