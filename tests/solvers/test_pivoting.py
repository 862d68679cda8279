import torch
from hypothesis import given
from hypothesis import strategies as st

from isonomy.solvers.active_set import TOLERANCE, active_set
from isonomy.solvers.pivoting import block_pivoting
from tests.fixtures import close, random_jacobian, tensor


def problems(tasks: int, count: int, rank: int, seed: int):
    J = random_jacobian(tasks, rank, seed)
    J = J / J.norm(dim=1, keepdim=True)
    q = -random_jacobian(count, rank, seed + 1) @ J.T
    return J @ J.T, q, TOLERANCE * q.abs().amax(1, keepdim=True)


@given(st.integers(1, 15), st.integers(1, 5), st.integers(0, 10_000))
def test_every_row_is_a_problem_of_its_own(tasks, count, seed):
    H, q, tolerance = problems(tasks, count, tasks + 2, seed)
    z, supports, solved = block_pivoting(H, q, tolerance)
    assert solved.all()
    assert torch.equal(supports, z > 0)
    for row, found in zip(q, z, strict=True):
        close(found, tensor(active_set(H.tolist(), row.tolist())), 1e-9)
    for i in range(count):
        close(block_pivoting(H, q[i : i + 1], tolerance[i : i + 1])[0][0], z[i], 1e-12)


@given(st.integers(2, 15), st.integers(0, 10_000))
def test_what_it_calls_solved_is_solved(tasks, seed):
    # Of low rank: it may cycle, and says so.
    H, q, tolerance = problems(tasks, tasks, max(1, tasks // 2), seed)
    z, _, solved = block_pivoting(H, q, tolerance)
    y = z @ H + q
    worst = torch.stack([-y.amin(1), -z.amin(1), (y * z).abs().amax(1)]).amax(0) / q.abs().amax(1)
    assert float(worst[solved].max() if solved.any() else 0.0) <= 1e-10


def test_cycles_are_noticed():
    found = [block_pivoting(*problems(20, 20, 10, seed))[2].all() for seed in range(3)]
    assert not all(found)
