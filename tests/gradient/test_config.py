import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from tests.fixtures import (
    DEPENDENT,
    OPPOSED,
    OPPOSED_AND_ORTHOGONAL,
    A,
    B,
    E,
    F,
    M,
    aggregate,
    close,
    jacobians,
    parallel,
    random_jacobian,
    tensor,
    weights,
)


def published(J):
    """The paper's operator on the gradients themselves."""
    unit = J / J.norm(dim=1, keepdim=True)
    x = torch.linalg.pinv(unit, rtol=1e-5) @ torch.ones(len(J), dtype=torch.float64)
    v = x / x.norm()
    return (J @ v).sum() * v


def normal(J):
    return J / J.norm(dim=1).max()


@pytest.mark.parametrize(
    ("J", "w"),
    [
        (A, [1.207107, 0.853553]),
        (B, [1.226483, 0.844124]),
        (E, [0.697256, 1.638667, 0.864260]),
        (F, [3.68662, -6.72103, 1.76633]),
    ],
)
def test_known_weights(J, w):
    close(weights("config", J), w, 1e-5 if J == F else 1e-6)


@pytest.mark.parametrize(
    ("J", "d"),
    [
        (B, [0.158809, 2.070607, 2.070607]),
        (E, [0.620106, -0.256856, 1.638667]),
        (F, [-0.65221, -1.76633, 0.15397]),
        (DEPENDENT, [2, 2]),
        (OPPOSED_AND_ORTHOGONAL, [0, 1]),
        (OPPOSED, [0, 0, 0]),
    ],
)
def test_known_aggregates(J, d):
    close(aggregate("config", J), d, 1e-5 if J == F else 1e-6)


def test_known_gains():
    close(tensor(F) @ aggregate("config", F), [1.45839, 0.65221, 1.45839], 1e-5)


@given(jacobians(1, 6, regular=True))
def test_the_form_on_cosines_is_the_papers_operator(J):
    J = normal(J)
    expected = published(J)
    close((aggregate("config", J) - expected) / expected.norm(), torch.zeros_like(expected), 1e-8)


@given(jacobians(1, 6, regular=True))
def test_cosines_are_equal_and_positive_and_the_length_is_the_sum_of_projections(J):
    J = normal(J)
    d = aggregate("config", J)
    cosines = J @ d / (J.norm(dim=1) * d.norm())
    assert float(cosines.min()) > 0
    close(cosines / cosines.mean(), torch.ones(len(J)), 1e-8)
    assert float((J @ d).sum() / (d @ d)) == pytest.approx(1, abs=1e-9)


@given(jacobians(1, 6, regular=True))
def test_is_imtl_g_at_another_length(J):
    J = normal(J)
    assert parallel(aggregate("config", J), aggregate("imtl_g", J)) == pytest.approx(1, abs=1e-9)


@given(jacobians(2, 2, regular=True))
def test_two_tasks_in_closed_form(J):
    n = J.norm(dim=1)
    close(weights("config", J) * 2 * n / n.sum(), [1, 1], 1e-7)


@given(jacobians(1, 5, regular=True), st.integers(0, 1000))
def test_linear_in_the_scales_of_tasks(J, seed):
    J = normal(J)
    first, second = random_jacobian(2, len(J), seed).abs() + 0.1
    one, other, both = (aggregate("config", k[:, None] * J) for k in (first, second, first + second))
    close((one + other - both) / both.norm(), torch.zeros_like(both), 1e-9)


def test_duplicates_share_their_weight():
    for seed in range(10):
        J = random_jacobian(4, 6, seed)[[0, 1, 2, 3, 0, 1, 1]]
        w = weights("config", J)
        close(w[[0, 1, 1]], w[[4, 5, 6]], 1e-9)
        close(aggregate("config", J), published(J), 1e-9)


def test_heads_get_their_own_gradients():
    m = M()
    m.step(isonomy.build("config", tasks=3))
    close(m.theta.grad, published(tensor([[2, 0], [0, -1], [2, 2]])), 1e-9)
    close(m.heads, [2, -2, 6])
