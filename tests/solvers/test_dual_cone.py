import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isonomy.solvers import dual_cone
from tests.fixtures import (
    FAR_NORMS,
    OPPOSED_AND_ORTHOGONAL,
    UNEQUALLY_OPPOSED,
    B,
    close,
    gramian_of,
    jacobians,
    random_jacobian,
    tensor,
)
from tests.solvers import exact


def certify(J, u, v, tolerance=1e-9):
    """v ≥ u, J d ≥ 0 and (v − u)ᵀ J d = 0, in lengths of the gradients."""
    n = J.norm(dim=1)
    size = float((u * n).abs().max(1).values.max())
    d = v @ J
    gains = d @ (J / n[:, None]).T
    assert float((v - u).min()) >= 0
    assert float(gains.min()) >= -tolerance * size
    assert float(((v - u) * n * gains).abs().max()) <= tolerance * size**2


@given(jacobians(1, 8), st.integers(1, 4), st.integers(0, 1000))
def test_optimal_at_any_shape_rank_and_scale(J, rows, seed):
    u = random_jacobian(rows, len(J), seed)
    certify(J, u, dual_cone(gramian_of(J), u))


@pytest.mark.parametrize("tasks", [2, 3, 10, 40, 100])
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("spread", [0, 8])
def test_each_row_is_optimal_in_its_own_scale(tasks, rank, spread):
    J = random_jacobian(tasks, 2 * tasks, 0, rank=rank, spread=spread)
    u = torch.eye(tasks, dtype=torch.float64)
    for row, found in zip(u, dual_cone(gramian_of(J), u), strict=True):
        certify(J, row[None], found[None])


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000))
def test_agrees_with_exact_arithmetic(tasks, columns, seed):
    J = exact.integers(tasks, columns, seed)
    u = exact.integers(3, tasks, seed + 1)
    G = exact.rational(J @ J.T)
    added = [exact.nnqp(G, exact.product(G, exact.rational(row))) for row in u]
    close(dual_cone(gramian_of(J), u) @ J, (u + tensor([[float(x) for x in row] for row in added])) @ J, 1e-9)


@pytest.mark.parametrize(
    ("J", "u", "d"),
    [
        (B, [1, 0], [-10 / 19, 30 / 19, 30 / 19]),
        (UNEQUALLY_OPPOSED, [1, 1], [0, 0, 0]),
        (OPPOSED_AND_ORTHOGONAL, [0, 1, 1], [0, 1]),
        (FAR_NORMS, [0.5, 0.5], [5e8 / 9, 1e9 / 9, 1e9 / 9]),
    ],
)
def test_known_projections(J, u, d):
    J = tensor(J)
    close(dual_cone(gramian_of(J), tensor(u)[None])[0] @ J, d)
