import mpmath
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize

from isonomy.gramian import Gramian
from isonomy.solvers import fair, min_norm, nash
from tests.fixtures import (
    FAR_NORMS,
    OPPOSED,
    UNEQUALLY_OPPOSED,
    A,
    B,
    E,
    close,
    gramian_of,
    jacobians,
    random_jacobian,
    tensor,
)

ALPHAS = [0.25, 0.5, 1, 2, 5, 20]


def residual(gramian, w, alpha=1.0) -> float:
    """How far the gains (Gw)_t are from w^(−1/α), relative to these."""
    return float(((gramian.matrix @ w) * w ** (1 / alpha) - 1).abs().max())


def backward_residual(gramian, w, alpha) -> float:
    """The same relative to the sizes that make up a gain, below which a gramian in float64 says nothing."""
    sizes = gramian.norms * (gramian.cosines.abs() @ (w * gramian.norms))
    return float(((gramian.matrix @ w - w ** (-1 / alpha)).abs() / sizes).max())


def shortest(gramian) -> float:
    """Norm of the shortest vector in the hull of the unit gradients; 0 at a Pareto-stationary point."""
    unit = Gramian(torch.ones_like(gramian.norms), gramian.cosines)
    return float(unit.combined_norm(min_norm(unit)))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("tasks", [1, 2, 3, 10, 40, 100])
def test_solves_its_equation(tasks, alpha):
    gramian = gramian_of(random_jacobian(tasks, 2 * tasks, 0, spread=1))
    w = fair(gramian, alpha)
    assert (w > 0).all()
    assert residual(gramian, w, alpha) <= 1e-9


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("tasks", [2, 3, 10, 40, 100])
def test_solves_its_equation_for_norms_that_are_1e8_apart(tasks, alpha):
    gramian = gramian_of(random_jacobian(tasks, 2 * tasks, 0, spread=8))
    w = fair(gramian, alpha)
    assert (w > 0).all()
    assert backward_residual(gramian, w, alpha) <= 1e-12
    if alpha in (1, 2):
        assert residual(gramian, w, alpha) <= 1e-9


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("tasks", "rank"), [(3, 2), (10, 6), (40, 21), (100, 60)])
def test_solves_its_equation_on_dependent_gradients(tasks, rank, alpha):
    # A common component, so that a solution exists.
    J = random_jacobian(tasks, 2 * tasks, 1, rank=rank - 1)
    gramian = gramian_of(torch.cat([J, torch.full((tasks, 1), 0.2).double()], 1))
    assert residual(gramian, fair(gramian, alpha), alpha) <= 1e-9


@given(jacobians(), st.sampled_from(ALPHAS))
def test_solves_its_equation_at_any_shape_rank_and_scale(J, alpha):
    gramian = gramian_of(J)
    assume(shortest(gramian) > 1e-3)
    assert backward_residual(gramian, fair(gramian, alpha), alpha) <= 1e-12


@given(jacobians())
def test_the_nash_aggregate_has_norm_root_t(J):
    gramian = gramian_of(J)
    assume(shortest(gramian) > 1e-3)
    a = nash(gramian)
    assert residual(gramian, a) <= 1e-9
    assert float((J.T @ a).norm()) == pytest.approx(len(J) ** 0.5, rel=1e-9)


# At α = 0.25 the far task of FAR_NORMS gains 1e-30 of what cancels in its gain, which no gramian in float64 can tell.
@pytest.mark.parametrize(
    ("J", "alpha"),
    [(J, alpha) for J in (A, B, E, FAR_NORMS) for alpha in ALPHAS if J is not FAR_NORMS or alpha > 0.25],
)
def test_agrees_with_50_digits(J, alpha):
    mpmath.mp.dps = 50
    w = fair(gramian_of(J), alpha)
    G = mpmath.matrix([[int(x) for x in row] for row in J])
    G = G * G.T
    p = 1 / mpmath.mpf(alpha)

    def equations(*logs):
        gains = G * mpmath.matrix([mpmath.exp(x) for x in logs])
        return [mpmath.log(abs(gain)) + p * x for gain, x in zip(gains, logs, strict=True)]

    reference = mpmath.findroot(equations, [mpmath.log(x) for x in w.tolist()], tol=1e-60)
    gains = G * mpmath.matrix([mpmath.exp(x) for x in reference])
    assert all(gain > 0 for gain in gains)
    close(w / tensor([float(mpmath.exp(x)) for x in reference]), torch.ones(len(J)), 1e-9)


@given(st.integers(2, 4), st.integers(0, 1000), st.sampled_from([0.5, 1, 2]))
def test_agrees_with_a_general_minimiser(tasks, seed, alpha):
    G = random_jacobian(tasks, tasks + 2, seed)
    G = (G @ G.T).numpy()

    def potential(log_w):
        w = tensor(log_w).exp().numpy()
        utility = log_w.sum() if alpha == 1 else (w ** (1 - 1 / alpha)).sum() / (1 - 1 / alpha)
        return 0.5 * w @ G @ w - utility, w * (G @ w) - w ** (1 - 1 / alpha)

    found = minimize(potential, torch.zeros(tasks).double().numpy(), jac=True, method="BFGS", options={"gtol": 1e-10})
    close(fair(Gramian.of(tensor(G)), alpha), tensor(found.x).exp(), 1e-6)


@pytest.mark.parametrize(
    ("J", "expected"),
    [
        (A, [0.765367, 0.541196]),
        (B, [0.591461, 0.407071]),
        (E, [0.743178, 1.552646, 0.817674]),
        ([[3, 4]], [0.2]),
        ([[3, 4]] * 3, [1 / (5 * 3**0.5)] * 3),
    ],
)
def test_known_nash_weights(J, expected):
    close(nash(gramian_of(J)), expected)


def test_two_tasks_have_a_closed_form():
    for seed in range(20):
        gramian = gramian_of(random_jacobian(2, 3, seed, spread=4))
        expected = 1 / (gramian.norms * (1 + gramian.cosines[0, 1]).sqrt())
        torch.testing.assert_close(nash(gramian), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_one_task_and_identical_tasks_have_closed_forms(alpha, scale):
    exponent = -alpha / (1 + alpha)
    close(fair(gramian_of(scale * tensor([[3, 4]])), alpha), [(scale * 5) ** (2 * exponent)], 1e-12)
    close(fair(gramian_of(scale * tensor([[3, 4]] * 3)), alpha), [(75 * scale**2) ** exponent] * 3, 1e-12)


@pytest.mark.parametrize(
    "J",
    [
        OPPOSED,
        UNEQUALLY_OPPOSED,
        [[1, 0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]],
        [[1, 0], [-2.4, 1.8], [-0.33, -0.38]],
    ],
)
def test_aggregate_vanishes_where_no_solution_exists(J):
    a = nash(gramian_of(J))
    assert (a > 1e5).all()
    assert float((tensor(J).T @ a).norm()) < 1e-5
    for alpha in ALPHAS:
        w = fair(gramian_of(J), alpha)
        assert w.isfinite().all()
        assert (w > 0).all()
        assert alpha > 2 or float((tensor(J).T @ w).norm()) < 1e-3


def test_nearly_opposed_gradients_still_have_a_solution():
    # The cosine is 5e-7 above -1: weights of about 1e3, and rounding that a Newton step cannot lower any more.
    gramian = gramian_of([[1, 1e-3], [-1, 0]])
    assert residual(gramian, nash(gramian)) <= 1e-8
