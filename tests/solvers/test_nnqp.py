import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from isonomy.solvers import nnqp
from isonomy.solvers.active_set import Factor
from tests.fixtures import close, random_jacobian, tensor
from tests.solvers import exact


def problem(tasks: int, rank: int, seed: int, spread: float = 0.0):
    """A quadratic program with cosines as H and a right-hand side for which it is bounded."""
    J = random_jacobian(tasks, rank, seed)
    J = J / J.norm(dim=1, keepdim=True)
    q = -J @ random_jacobian(1, rank, seed + 1)[0]
    return J, J @ J.T, q * 10.0**spread


def residual(H, q, z) -> float:
    """Largest violation of z ≥ 0, y ≥ 0 and zᵀy = 0, relative to max |q|, which is the size of z too."""
    y = H @ z + q
    return float(torch.stack([-z.min(), -y.min(), (z * y).abs().max() / q.abs().max()]).max() / q.abs().max())


@pytest.mark.parametrize("tasks", [2, 3, 10, 40, 100])
@pytest.mark.parametrize("share", [1.5, 0.5, 0.2], ids=["regular", "deficient", "flat"])
def test_solution_is_stationary(tasks, share):
    for seed in range(2):
        _, H, q = problem(tasks, max(1, int(share * tasks)), seed)
        assert residual(H, q, nnqp(H, q)) <= 1e-9


@pytest.mark.parametrize("tasks", [2, 5, 10, 40, 100])
@pytest.mark.parametrize("share", [1.5, 0.2], ids=["regular", "flat"])
def test_rows_are_solved_like_single_problems(tasks, share):
    J, H, _ = problem(tasks, max(1, int(share * tasks)), 0)
    q = -random_jacobian(8, J.shape[1], 1, spread=8) @ J.T
    q[3] = q[3].abs()
    z = nnqp(H, q)
    assert z.shape == q.shape
    assert torch.equal(z[3], torch.zeros(tasks, dtype=torch.float64))
    for row, found in zip(q, z, strict=True):
        assert residual(H, row, found) <= 1e-9
        # z is unique only for a regular H; its combination of the gradients always is.
        size = float(row.abs().max())
        close(found @ J / size, nnqp(H, row) @ J / size, 1e-9)


def test_rows_that_the_pivoting_gives_up_are_solved_all_the_same():
    J, H, _ = problem(40, 20, 3)
    q = -random_jacobian(40, 20, 1) @ J.T
    for row, found in zip(q, nnqp(H, q), strict=True):
        assert residual(H, row, found) <= 1e-9


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000), st.integers(1, 40))
def test_agrees_with_exact_arithmetic(tasks, columns, seed, count):
    # Few rows are solved in plain floats, many by pivoting.
    J, points = exact.integers(tasks, columns, seed), exact.integers(count, columns, seed + 1)
    d = J.norm(dim=1).reciprocal()
    G = exact.rational(J @ J.T)
    found = (nnqp((J @ J.T) * d * d[:, None], -(points @ J.T) * d) * d) @ J
    expected = [exact.nnqp(G, exact.rational(-J @ point)) for point in points]
    close(found, tensor([[float(x) for x in z] for z in expected]) @ J, 1e-10)


@pytest.mark.parametrize("spread", [-8, 8])
def test_scale_of_the_right_hand_side_does_not_matter(spread):
    _, H, q = problem(10, 6, 0)
    torch.testing.assert_close(nnqp(H, q * 10.0**spread), nnqp(H, q) * 10.0**spread, rtol=1e-9, atol=0)


@given(st.integers(1, 12), st.integers(0, 10_000))
def test_agrees_with_non_negative_least_squares(tasks, seed):
    # ½ zᵀHz + qᵀz is ½ ‖Lᵀz + L⁻¹q‖² up to a constant, for the Cholesky factor L of H.
    _, H, q = problem(tasks, tasks + 2, seed)
    L = np.linalg.cholesky(H.numpy())
    expected, _ = nnls(L.T, -np.linalg.solve(L, q.numpy()))
    close(nnqp(H, q), expected, 1e-8)


@given(st.integers(2, 12), st.integers(0, 10_000))
def test_deficient_problems_reach_the_same_objective_as_least_squares(tasks, seed):
    J, H, q = problem(tasks, max(1, tasks // 2), seed)
    target = -torch.linalg.lstsq(J, q[:, None]).solution[:, 0]
    _, distance = nnls(J.T.numpy(), target.numpy())
    assert float((J.T @ nnqp(H, q) - target).norm()) == pytest.approx(distance, abs=1e-7)


@pytest.mark.parametrize(
    ("H", "q", "expected"),
    [
        ([[1.0]], [-2.0], [2.0]),
        ([[1.0]], [2.0], [0.0]),
        ([[1.0, 0.5], [0.5, 1.0]], [0.0, 0.0], [0.0, 0.0]),
        ([[1.0, 0.5], [0.5, 1.0]], [-1.0, -0.5], [1.0, 0.0]),
        ([[1.0, -0.5], [-0.5, 1.0]], [-1.0, 0.0], [4 / 3, 2 / 3]),
    ],
)
def test_small_problems(H, q, expected):
    close(nnqp(tensor(H), tensor(q)), expected, 1e-12)


def test_a_coordinate_leaves_the_support_again():
    # The steepest coordinate comes first and is not part of the solution.
    H = tensor([[1, 0.9, 0.9], [0.9, 1, 0.65], [0.9, 0.65, 1]])
    z = nnqp(H, tensor([-1, -0.96, -0.96]))
    assert z[0] == 0
    assert residual(H, tensor([-1, -0.96, -0.96]), z) <= 1e-12


def test_infeasible_problems_end():
    # Unbounded below: no z makes Hz + q ≥ 0. Callers try such problems and only need an answer, soon.
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        J = random_jacobian(10, 2, seed)
        J = J / J.norm(dim=1, keepdim=True)
        q = -torch.rand(10, generator=generator, dtype=torch.float64) * 10.0 ** -(seed % 17)
        z = nnqp(J @ J.T, q)
        assert z.isfinite().all()
        assert (z >= 0).all()


@pytest.mark.parametrize(
    ("seed", "tasks", "level"),
    [(55, 10, -1e-6), (163, 6, 1e-10), (171, 7, 1e-14), (325, 7, -1e-9), (773, 7, 1e-10), (1015, 4, 1e-14)],
)
def test_a_coordinate_that_rounding_leaves_above_0_still_leaves_the_support(seed, tasks, level, monkeypatch):
    # CAGrad's levels near a Pareto-stationary point; an active set that waits for an exact 0 never ends here.
    solve, calls = Factor.solve, itertools.count()

    def counted(*args):
        assert next(calls) < 2000, "the active set does not settle"
        return solve(*args)

    monkeypatch.setattr(Factor, "solve", counted)
    J = random_jacobian(tasks, 2, seed, spread=2)
    n = J.norm(dim=1) / J.norm(dim=1).max()
    J = J / J.norm(dim=1, keepdim=True)
    C = J @ J.T
    z = nnqp(C, ((C * n * n[:, None]).sum(1) / tasks - level) / n)
    assert z.isfinite().all()
    assert (z >= 0).all()
