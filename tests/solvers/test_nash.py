import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize

from isonomy.gramian import Gramian
from isonomy.solvers import min_norm, nash
from tests.fixtures import (
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


def residual(gramian, a) -> float:
    return float((a * (gramian.matrix @ a) - 1).abs().max())


def shortest(gramian) -> float:
    """Norm of the shortest vector in the hull of the unit gradients; 0 at a Pareto-stationary point."""
    unit = Gramian(torch.ones_like(gramian.norms), gramian.cosines)
    return float(unit.combined_norm(min_norm(unit)))


@pytest.mark.parametrize("tasks", [2, 3, 10, 40, 100])
@pytest.mark.parametrize("spread", [0, 8])
def test_solves_its_equation(tasks, spread):
    gramian = gramian_of(random_jacobian(tasks, 2 * tasks, 0, spread=spread))
    a = nash(gramian)
    assert (a > 0).all()
    assert residual(gramian, a) <= 1e-9


@pytest.mark.parametrize(("tasks", "rank"), [(3, 2), (10, 6), (40, 21), (100, 60)])
def test_solves_its_equation_on_dependent_gradients(tasks, rank):
    # A common component, so that a bargaining solution exists.
    J = random_jacobian(tasks, 2 * tasks, 1, rank=rank - 1)
    gramian = gramian_of(torch.cat([J, torch.full((tasks, 1), 0.2).double()], 1))
    assert residual(gramian, nash(gramian)) <= 1e-9


@given(jacobians())
def test_solves_its_equation_at_any_shape_rank_and_scale(J):
    gramian = gramian_of(J)
    assume(shortest(gramian) > 1e-3)
    a = nash(gramian)
    assert residual(gramian, a) <= 1e-9
    assert float((J.T @ a).norm()) == pytest.approx(len(J) ** 0.5, rel=1e-9)


@given(st.integers(2, 4), st.integers(0, 1000))
def test_agrees_with_a_general_minimiser(tasks, seed):
    G = random_jacobian(tasks, tasks + 2, seed)
    G = (G @ G.T).numpy()

    def potential(log_a):
        a = tensor(log_a).exp().numpy()
        return 0.5 * a @ G @ a - log_a.sum(), a * (G @ a) - 1

    found = minimize(potential, torch.zeros(tasks).double().numpy(), jac=True, method="BFGS", options={"gtol": 1e-10})
    close(nash(Gramian.of(tensor(G))), tensor(found.x).exp(), 1e-6)


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
def test_known_weights(J, expected):
    close(nash(gramian_of(J)), expected)


def test_two_tasks_have_a_closed_form():
    for seed in range(20):
        gramian = gramian_of(random_jacobian(2, 3, seed, spread=4))
        expected = 1 / (gramian.norms * (1 + gramian.cosines[0, 1]).sqrt())
        torch.testing.assert_close(nash(gramian), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("J", [OPPOSED, UNEQUALLY_OPPOSED, [[1, 0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]])
def test_aggregate_vanishes_where_no_solution_exists(J):
    a = nash(gramian_of(J))
    assert (a > 1e5).all()
    assert float((tensor(J).T @ a).norm()) < 1e-5


def test_nearly_opposed_gradients_still_have_a_solution():
    # The cosine is 5e-7 above -1: weights of about 1e3, and rounding that a Newton step cannot lower any more.
    gramian = gramian_of([[1, 1e-3], [-1, 0]])
    assert residual(gramian, nash(gramian)) <= 1e-8
