import pytest
import torch
from hypothesis import given

import isonomy
from tests.fixtures import OPPOSED, M, aggregate, close, jacobians, linear, parallel, tensor, weights

WEIGHTS = [2.061553, 4.123106, 1.457738]


def test_gradients_on_a_model():
    m = M()
    balancer = isonomy.build("avgnorm", tasks=3)
    m.step(balancer)
    close(balancer.report.weights, WEIGHTS)
    close(m.theta.grad, [7.038582, -1.207630])
    close(m.heads, [4.123106, -8.246211, 8.746428])


@given(jacobians())
def test_every_weighted_gradient_is_as_long_as_the_sum(J):
    J = J / J.norm(dim=1).max()
    total = float(J.sum(0).norm())
    close(weights("avgnorm", J) * J.norm(dim=1), [total] * len(J), 1e-7)
    close(aggregate("avgnorm", J), total * (J / J.norm(dim=1, keepdim=True)).sum(0), 1e-7)


def test_orthogonal_gradients_of_one_norm_and_one_task():
    close(weights("avgnorm", torch.eye(3)), [3**0.5] * 3)
    close(weights("avgnorm", [[3, 4]]), [1])


def test_a_sum_of_zero_stops_the_shared_parameters_and_the_heads():
    theta, heads, losses = linear(OPPOSED)
    isonomy.build("avgnorm", tasks=2)(losses, shared=[theta]).backward()
    close(theta.grad, [0, 0, 0], 1e-7)
    close(torch.stack([head.grad for head in heads]), [0, 0], 1e-7)


def test_measured_at_a_probe_and_applied_everywhere():
    J = tensor([[2, 0, 5], [0, -1, 5], [2, 2, 5]])
    trunk, last = (torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in (1, 2))
    losses = [row[:2] @ last + row[2] * trunk.sum() for row in J]
    balancer = isonomy.build("avgnorm", tasks=3)
    balancer(losses, shared=[trunk, last], probe=[last]).backward()
    close(balancer.report.weights, WEIGHTS)
    close(last.grad, [7.038582, -1.207630])
    close(trunk.grad, [5 * sum(WEIGHTS)], 1e-5)


@pytest.mark.parametrize("k", [[1, 10, 0.1], [1e3, 1, 1]])
def test_scales_of_the_tasks_do_not_turn_it(k):
    J = tensor([[2, 0], [0, -1], [2, 2]])
    assert parallel(aggregate("avgnorm", J), aggregate("avgnorm", tensor(k)[:, None] * J)) == pytest.approx(1)
