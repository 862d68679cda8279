import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize

from isonomy.solvers import min_norm
from tests.fixtures import (
    DEPENDENT,
    FAR_NORMS,
    OPPOSED,
    OPPOSED_AND_ORTHOGONAL,
    UNEQUALLY_OPPOSED,
    A,
    B,
    E,
    F,
    close,
    gramian_of,
    jacobians,
    random_jacobian,
    tensor,
)
from tests.solvers import exact


def residual(gramian, w) -> float:
    """Violation of the optimality conditions, in variables scaled by the norms: how far (Gw)_t is from its minimum."""
    n = gramian.norms
    z = w * n / n.min()
    y = gramian.cosines @ z - (z @ gramian.cosines @ z) * n.min() / n
    return float(torch.cat([-y, (y * z).abs(), -w]).max())


@pytest.mark.parametrize("tasks", [2, 3, 10, 40, 100])
@pytest.mark.parametrize("share", [1.5, 0.5], ids=["regular", "deficient"])
@pytest.mark.parametrize("spread", [0, 8])
def test_weights_are_optimal(tasks, share, spread):
    gramian = gramian_of(random_jacobian(tasks, 2 * tasks, 0, rank=max(1, int(share * tasks)), spread=spread))
    w = min_norm(gramian)
    assert float(w.sum()) == pytest.approx(1, abs=1e-12)
    assert residual(gramian, w) <= 1e-9


@given(jacobians())
def test_weights_are_optimal_at_any_shape_rank_and_scale(J):
    gramian = gramian_of(J)
    assert residual(gramian, min_norm(gramian)) <= 1e-9


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000), st.integers(0, 12))
def test_agrees_with_exact_arithmetic(tasks, columns, seed, far):
    # Norms up to 10^12 apart; (G + 11ᵀ) z = 1 on the support is the stationarity of the shortest point of the hull.
    J = exact.integers(tasks, columns, seed)
    J[0] *= 10.0**far
    rows = exact.rational(J)
    H = [[sum((a * b for a, b in zip(x, y, strict=True)), Fraction(1)) for y in rows] for x in rows]
    z = exact.nnqp(H, [Fraction(-1)] * tasks)
    shortest = [float(sum(w * row[k] for w, row in zip(z, rows, strict=True)) / sum(z)) for k in range(columns)]
    scale = float(J.norm(dim=1).min())
    close(min_norm(gramian_of(J)) @ J / scale, tensor(shortest) / scale, 1e-9)


@pytest.mark.parametrize("tasks", [2, 3, 10, 40])
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("spread", [0, 8])
def test_no_gradient_lies_before_the_point_in_exact_arithmetic(tasks, rank, spread):
    # g_t·x ≥ ‖x‖² for the shortest point x, which no gradient's length may hide: J and w as they are, without rounding.
    J = random_jacobian(tasks, tasks + 2, 1, rank=rank, spread=spread)
    rows, w = exact.rational(J), exact.rational(min_norm(gramian_of(J)))
    x = [sum(a * row[k] for a, row in zip(w, rows, strict=True)) / sum(w) for k in range(J.shape[1])]
    square = sum(a * a for a in x)
    for row, norm in zip(rows, J.norm(dim=1).tolist(), strict=True):
        lacking = float(square - sum(a * b for a, b in zip(row, x, strict=True))) / norm
        assert lacking <= 1e-9 * float(J.norm(dim=1).min())


@given(jacobians(2, 4))
def test_nothing_on_a_grid_or_from_slsqp_is_shorter(J):
    J = J / J.norm(dim=1).max()
    G, tasks = J @ J.T, len(J)
    w = min_norm(gramian_of(J))
    best = float(w @ G @ w)
    steps = [tensor(p) / 12 for p in itertools.product(range(13), repeat=tasks) if sum(p) == 12]
    assert best <= min(float(p @ G @ p) for p in steps) + 1e-12
    found = minimize(
        lambda p: p @ G.numpy() @ p,
        torch.full((tasks,), 1 / tasks).double().numpy(),
        jac=lambda p: 2 * G.numpy() @ p,
        bounds=[(0, 1)] * tasks,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 300},
    )
    assert best == pytest.approx(found.fun, abs=1e-7)


@given(jacobians(2, 2))
def test_two_tasks_have_a_closed_form(J):
    (a, b), (_, c) = (J @ J.T).tolist()
    assume(a + c - 2 * b > 1e-6 * (a + c))
    first = min(max((c - b) / (a + c - 2 * b), 0.0), 1.0)
    close(min_norm(gramian_of(J)), [first, 1 - first], 1e-7)


@pytest.mark.parametrize(
    ("J", "expected"),
    [
        (A, [1, 0]),
        (B, [0.6, 0.4]),
        (E, [0.217391, 0.521739, 0.260870]),
        (F, [0, 0.833333, 0.166667]),
        (OPPOSED, [0.5, 0.5]),
        (UNEQUALLY_OPPOSED, [1 / 3, 2 / 3]),
        (OPPOSED_AND_ORTHOGONAL, [0.5, 0.5, 0]),
        (DEPENDENT, [0.5, 0.5, 0]),
        ([[3, 4]], [1]),
    ],
)
def test_known_weights(J, expected):
    close(min_norm(gramian_of(J)), expected)


def test_norms_that_differ_by_1e8_lose_no_direction():
    J = tensor(FAR_NORMS)
    close(J.T @ min_norm(gramian_of(J)), [-0.52632, 1.57895, 1.57895], 1e-5)
