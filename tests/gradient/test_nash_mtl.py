import pytest
import torch
from hypothesis import assume, given

import isonomy
from tests.fixtures import OPPOSED, A, B, E, M, aggregate, close, jacobians, linear, tensor, weights


@pytest.mark.parametrize(
    ("J", "w", "d"),
    [
        (A, [0.765367, 0.541196], [1.306563, 0.541196]),
        (B, [0.591461, 0.407071], [0.076584, 0.998533, 0.998533]),
        (E, [0.743178, 1.552646, 0.817674], [0.751385, -0.157199, 1.552646]),
    ],
)
def test_known_weights(J, w, d):
    close(weights("nash_mtl", J, max_norm=None), w)
    close(aggregate("nash_mtl", J, max_norm=None), d)
    close(aggregate("nash_mtl", J), tensor(d) / len(J) ** 0.5)


@pytest.mark.parametrize(("max_norm", "norm"), [(1.0, 1.0), (0.5, 0.5), (10.0, 3**0.5), (None, 3**0.5)])
def test_the_shared_gradient_is_clipped(max_norm, norm):
    assert float(aggregate("nash_mtl", E, max_norm=max_norm).norm()) == pytest.approx(norm, abs=1e-9)


def test_a_clipped_direction():
    close(aggregate("nash_mtl", B), [0.054153, 0.706069, 0.706069])


@given(jacobians(regular=True))
def test_products_with_the_gradients_are_the_reciprocals_of_the_weights(J):
    a = weights("nash_mtl", J, max_norm=None)
    close(a * (J @ aggregate("nash_mtl", J, max_norm=None)), torch.ones(len(J)), 1e-8)
    assert (a > 0).all()


@given(jacobians(2, 2))
def test_two_tasks_bisect(J):
    u = J / J.norm(dim=1, keepdim=True)
    assume(float(u.sum(0).norm()) > 1e-3)
    close(aggregate("nash_mtl", J), u.sum(0) / u.sum(0).norm(), 1e-7)


def test_heads_get_the_weights_before_clipping():
    m = M()
    m.step(isonomy.build("nash_mtl", tasks=3))
    rows = tensor([[2, 0], [0, -1], [2, 2]])
    a = weights("nash_mtl", rows, max_norm=None)
    close(m.theta.grad, a @ rows / 3**0.5, 1e-12)
    close(m.heads, a * tensor([2, -2, 6]), 1e-12)


def heads_of(balancer, J):
    theta, heads, losses = linear(J)
    balancer(losses, shared=[theta]).backward()
    return theta.grad, torch.stack([head.grad for head in heads])


def test_at_a_stationary_point_heads_keep_the_last_weights():
    balancer = isonomy.build("nash_mtl", tasks=2)
    d, heads = heads_of(balancer, OPPOSED)
    close(d, [0, 0, 0])
    close(heads, [1, 1], 0)
    _, heads = heads_of(balancer, B)
    close(heads, [0.591461, 0.407071])
    for _ in range(2):
        d, heads = heads_of(balancer, OPPOSED)
        close(d, [0, 0, 0])
        close(heads, [0.591461, 0.407071])


@pytest.mark.parametrize("max_norm", [0.0, -1.0, float("nan")])
def test_unusable_norms(max_norm):
    with pytest.raises(isonomy.IsonomyError, match="max_norm"):
        isonomy.build("nash_mtl", tasks=2, max_norm=max_norm)
