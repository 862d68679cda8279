import pytest
import torch

import isonomy
from tests.fixtures import B, aggregate, close, tensor


@pytest.mark.parametrize("name", ["upgrad", "dualproj"])
def test_a_preference_belongs_to_a_task_and_not_to_a_position_in_the_batch(name):
    J = tensor(B)
    balancer = isonomy.build(name, tasks=["a", "b", "c"], preference=[3, 1, 2], allow_missing=True)
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    balancer({"b": J[0] @ theta, "c": J[1] @ theta}, shared=[theta]).backward()
    close(theta.grad, aggregate(name, J, preference=[1, 2]), 1e-12)


@pytest.mark.parametrize("preference", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]])
@pytest.mark.parametrize("name", ["upgrad", "dualproj"])
def test_unusable_preferences(name, preference):
    with pytest.raises(isonomy.IsonomyError, match=f"{name}: preference"):
        isonomy.build(name, tasks=2, preference=preference)
