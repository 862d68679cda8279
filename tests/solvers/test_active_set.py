import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isonomy.solvers.active_set import Factor, active_set
from tests.fixtures import close, random_jacobian, tensor
from tests.solvers import exact

H = [[1.0, 0.3, -0.2], [0.3, 1.0, 0.5], [-0.2, 0.5, 1.0]]


@given(st.permutations(range(3)), st.integers(1, 3))
def test_factor_solves_its_block(order, size):
    factor = Factor(H)
    for coordinate in order[:size]:
        factor.add(coordinate)
    index = torch.tensor(order[:size])
    expected = torch.linalg.solve(tensor(H)[index][:, index], tensor([1, 2, 3])[index])
    close(tensor(factor.solve([1.0, 2.0, 3.0])), expected, 1e-14)


@given(st.permutations(range(3)), st.lists(st.booleans(), min_size=3, max_size=3))
def test_factor_without_some_coordinates_is_the_factor_of_the_others(order, kept):
    factor, other = Factor(H), Factor(H)
    for coordinate in order:
        factor.add(coordinate)
    if not all(kept):
        factor.keep(kept)
    for coordinate in (i for i, stays in zip(order, kept, strict=True) if stays):
        other.add(coordinate)
    assert factor.support == other.support
    assert factor.solve([1.0, 2.0, 3.0]) == pytest.approx(other.solve([1.0, 2.0, 3.0]), abs=1e-14)


def test_factor_refuses_a_dependent_coordinate_on_request():
    factor = Factor([[1.0, -1.0], [-1.0, 1.0]])
    factor.add(0)
    factor.add(1, 1e-10)
    assert factor.support == [0]


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000), st.data())
def test_reaches_the_exact_objective_from_any_start(tasks, columns, seed, data):
    J = exact.integers(tasks, columns, seed)
    G, q = J @ J.T, -J @ exact.integers(1, columns, seed + 1)[0]
    d = G.diagonal().rsqrt()
    start = data.draw(st.lists(st.sampled_from(range(tasks)), unique=True))
    z = d * tensor(active_set((G * d * d[:, None]).tolist(), (q * d).tolist(), start))
    found, expected = tensor(z) @ J, tensor([float(x) for x in exact.nnqp(exact.rational(G), exact.rational(q))]) @ J
    close(found, expected, 1e-11)


def test_a_ray_is_followed_to_its_end():
    # Both columns are the same: the second takes the place of the first.
    assert active_set([[1.0, 1.0], [1.0, 1.0]], [-1.0, -2.0], [0]) == pytest.approx([0, 2])
    assert active_set([[1.0, 1.0], [1.0, 1.0]], [-1.0, -2.0]) == pytest.approx([0, 2])


def test_an_unbounded_program_ends_far_out():
    z = active_set([[1.0, -1.0], [-1.0, 1.0]], [-1.0, -2.0])
    assert min(z) > 1e12


@pytest.mark.parametrize(("tasks", "rank"), [(8, 2), (8, 4), (12, 6), (20, 10), (45, 22), (100, 50)])
@pytest.mark.parametrize("spread", [0, 4, 12])
def test_dependent_coordinates_do_no_harm(tasks, rank, spread):
    # More gradients than dimensions hold 0 in their hull as often as not: z may grow along rays on which Hz stays.
    for seed in range(3 if tasks < 40 else 1):
        J = random_jacobian(tasks, 2 * tasks, seed, rank=rank, spread=spread)
        n = J.norm(dim=1)
        J = J / n[:, None]
        C = J @ J.T
        for q in [*(C * n[:, None])[:3], C @ n]:
            z = tensor(active_set(C.tolist(), q.tolist()))
            y = C @ z + q
            size = float(q.abs().max())
            assert float(z.max()) <= 1e6 * size
            assert float(torch.stack([-y.min(), -z.min(), (y * z).abs().max() / size]).max()) <= 1e-9 * size
