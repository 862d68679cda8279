import pytest
import torch

from isonomy import IsonomyError
from isonomy.gradient import MaxNorm
from isonomy.gradient.groups import group, group_gramians, weigh_groups
from isonomy.gramian import Gramian
from isonomy.stages import Jacobian, Measurement
from tests.fixtures import close, gramian_of, random_jacobian, tensor

J = random_jacobian(3, 5, 0)
ROWS = [[row[:2], row[2:]] for row in J]


def measurement(jacobian):
    return Measurement(gramian_of(J), torch.arange(3), None, torch.ones(3), jacobian)


WHOLE = measurement(None)
SPLIT = measurement(Jacobian([ROWS], ROWS[0], "parameters"))


def test_only_groups_of_tensors_read_the_gradients():
    whole, split = MaxNorm(), MaxNorm()
    group(whole, "max_norm", "model")
    group(split, "max_norm", "tensor")
    assert (whole.jacobian, whole.levels) == (False, ("parameters", "features"))
    assert (split.jacobian, split.levels) == (True, ("parameters",))
    with pytest.raises(IsonomyError, match="groups of max_norm 'layer'"):
        group(MaxNorm(), "max_norm", "layer")


def test_the_model_is_one_group_and_a_tensor_another():
    found = group_gramians(WHOLE, "max_norm", 0)
    close(found.norms, J.norm(dim=1)[None], 1e-14)
    split = group_gramians(SPLIT, "max_norm", 2)
    for norms, cosines, part in zip(split.norms, split.cosines, (J[:, :2], J[:, 2:]), strict=True):
        close(Gramian(norms, cosines).matrix, part @ part.T, 1e-14)


def test_weights_of_one_group_are_weights_and_those_of_tensors_an_aggregate():
    w = random_jacobian(2, 3, 1)
    assert torch.equal(weigh_groups(WHOLE, w[:1]), w[0])
    first, second = weigh_groups(SPLIT, w)
    close(torch.cat([first, second]), torch.cat([w[0] @ J[:, :2], w[1] @ J[:, 2:]]), 1e-14)


def test_another_number_of_tensors_is_an_error():
    with pytest.raises(IsonomyError, match="max_norm: there are 2 shared tensors now and there were 3 before"):
        group_gramians(SPLIT, "max_norm", 3)


def test_stacks_of_zero_rows():
    rows = [[tensor([0, 0]), tensor([3, 4])], [tensor([1, 0]), tensor([0, 0])]]
    found = group_gramians(measurement(Jacobian([rows], rows[0], "parameters")), "max_norm", 0)
    close(found.norms, [[0, 1], [5, 0]], 0)
    close(found.cosines, torch.eye(2).expand(2, 2, 2), 0)
