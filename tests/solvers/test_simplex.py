import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isonomy.solvers import among, project_simplex, share
from tests.fixtures import close, random_jacobian, tensor


def brute_force(v):
    """The nearest of the projections on the planes of all faces that lie on their face."""
    candidates = []
    for size in range(1, len(v) + 1):
        for face in itertools.combinations(range(len(v)), size):
            w = torch.zeros_like(v)
            w[list(face)] = v[list(face)] - (v[list(face)].sum() - 1) / size
            if (w >= 0).all():
                candidates.append(w)
    return min(candidates, key=lambda w: float((w - v).norm()))


vectors = st.builds(
    lambda size, seed, exponent: 10.0**exponent * random_jacobian(1, size, seed)[0],
    st.integers(1, 5),
    st.integers(0, 10_000),
    st.integers(-3, 2),
)


@given(vectors)
def test_nearest_by_brute_force(v):
    w = project_simplex(v)
    close(w, brute_force(v), 1e-12)
    assert (w >= 0).all()
    assert float(w.sum()) == pytest.approx(1, abs=1e-12)


@given(vectors, st.integers(0, 10_000))
def test_no_other_point_is_on_its_side(v, seed):
    # (v − w)·(u − w) ≤ 0 for every corner u, which is what makes w the projection for any number of entries.
    v = torch.cat([v, random_jacobian(1, 30, seed)[0]])
    w = project_simplex(v)
    assert float(((v - w)[None] * (torch.eye(len(v)) - w)).sum(1).max()) < 1e-12 * float(v.abs().max().clamp_min(1))


def test_points_of_the_simplex_stay():
    for w in ([0.2, 0.3, 0.5], [0.0, 1.0], [1.0]):
        close(project_simplex(tensor(w)), w, 1e-15)


def test_equal_entries_share():
    close(project_simplex(tensor([7.0, 7.0, -1.0])), [0.5, 0.5, 0], 1e-15)


def test_huge_entries_lose_nothing():
    close(project_simplex(tensor([-1e30, 3e15, 3e15])), [0, 0.5, 0.5], 1e-15)
    close(project_simplex(tensor([1e30, -1e30])), [1, 0], 1e-15)


def test_among():
    close(among(tensor([0.5, 0.2, 0.3]), torch.tensor([0, 2])), [0.625, 0.375], 1e-15)
    close(among(tensor([0.0, 1.0, 0.0]), torch.tensor([0, 2])), [0.5, 0.5], 1e-15)
    close(among(tensor([0.5, 0.5]), torch.arange(2)), [0.5, 0.5], 0)


def test_share():
    w = tensor([0.1, 0.2, 0.7])
    assert share(w, torch.arange(3)) == 1
    assert float(share(w, torch.tensor([0, 2]))) == pytest.approx(0.8)
    assert share(tensor([0.0, 0.7, 0.1, 0.2, 1e-16]), torch.tensor([0])) >= 0
