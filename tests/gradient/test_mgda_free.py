import pytest
import torch
from hypothesis import given

import isonomy
from tests.fixtures import DEPENDENT, A, B, E, M, aggregate, close, jacobians, tensor, weights


@pytest.mark.parametrize(
    ("J", "w", "d"),
    [
        (A, [1, 0], [1, 0]),
        (B, [0.6, 0.4], [0, 1, 1]),
        (E, [0.217391, 0.521739, 0.260870], [0.173913, -0.043478, 0.521739]),
        ([[1, 0], [2, 1]], [1.5, -0.5], [0.5, -0.5]),
        (DEPENDENT, [1, 1, -1], [0, 0]),
        ([[3, 4]] * 3, [1 / 3] * 3, [3, 4]),
    ],
)
def test_known_weights(J, w, d):
    close(weights("mgda_free", J), w)
    close(aggregate("mgda_free", J), d)


@given(jacobians(regular=True))
def test_products_with_all_gradients_are_equal(J):
    J = J / J.norm(dim=1).max()
    w, d = weights("mgda_free", J), aggregate("mgda_free", J)
    close(w.sum(), 1, 1e-9)
    close(J @ d, [float(d @ d)] * len(J), 1e-9)


@given(jacobians(2, regular=True))
def test_agrees_with_the_papers_formula(J):
    # With D the differences g_1 - g_t: w_2..T = g_1 Dᵀ (D Dᵀ)⁻¹.
    J = J / J.norm(dim=1).max()
    D = J[0] - J[1:]
    rest = torch.linalg.solve(D @ D.T, D @ J[0])
    close(weights("mgda_free", J), torch.cat([1 - rest.sum()[None], rest]), 1e-6)


@given(jacobians(2, 5))
def test_it_is_never_longer_than_mgda(J):
    assert float(aggregate("mgda_free", J).norm()) <= float(aggregate("mgda", J).norm()) + 1e-6 * float(J.norm())


def test_heads_get_the_weights():
    m = M()
    balancer = isonomy.build("mgda_free", tasks=3)
    m.step(balancer)
    close(m.theta.grad, [0, 0])  # Three tasks in two dimensions.
    close(m.heads, balancer.report.weights * tensor([2, -2, 6]), 1e-12)
    close(balancer.report.weights.sum(), 1, 1e-12)
