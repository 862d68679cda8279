import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from tests.fixtures import A, B, E, F, M, aggregate, close, jacobians, random_jacobian, weights


def shortest_above(G, u):
    """The v ≥ u that minimises vᵀGv, by trying every set of entries that stay at u; for a regular G."""
    candidates = []
    for choice in itertools.product([False, True], repeat=len(u)):
        free = torch.tensor(choice)
        v = u.clone()
        if free.any():
            v[free] = torch.linalg.solve(G[free][:, free], -G[free][:, ~free] @ u[~free])
        if (v >= u - 1e-12).all():
            candidates.append(v)
    return min(candidates, key=lambda v: float(v @ G @ v))


@pytest.mark.parametrize(
    ("J", "w"),
    [
        (A, [0.5, 0.5]),
        (B, [1.111111, 0.789474]),
        (E, [0.595238, 1.166667, 0.642857]),
        (F, [0.466667, 0.333333, 0.466667]),
        ([[3, 4]], [1]),
    ],
)
def test_known_weights(J, w):
    close(weights("upgrad", J), w)


@pytest.mark.parametrize(("J", "d"), [(B, [0.292398, 1.900585, 1.900585]), (E, [0.666667, -0.166667, 1.166667])])
def test_known_directions(J, d):
    close(aggregate("upgrad", J), d)


@given(jacobians(2, 4, regular=True))
def test_agrees_with_brute_force(J):
    J = J / J.norm(dim=1).max()
    p = torch.eye(len(J), dtype=torch.float64) / len(J)
    expected = sum(shortest_above(J @ J.T, u) for u in p)
    close(weights("upgrad", J) @ J, expected @ J, 1e-9)


@given(jacobians(1, 6))
def test_no_task_is_harmed_and_every_weight_is_at_least_its_preference(J):
    J = J / J.norm(dim=1).max()
    w = weights("upgrad", J)
    assert float(w.min()) >= 1 / len(J)
    assert float((J @ (w @ J) / J.norm(dim=1)).min()) >= -1e-9


@pytest.mark.parametrize("tasks", [2, 10, 40])
@pytest.mark.parametrize("rank", [None, 2])
def test_no_task_is_harmed_whatever_the_norms(tasks, rank):
    J = random_jacobian(tasks, tasks + 5, 0, rank=rank, spread=8)
    gains = J @ aggregate("upgrad", J) / J.norm(dim=1)
    assert float(gains.min()) >= -1e-9 * float(J.norm(dim=1).max())


@given(jacobians(1, 5, regular=True), st.integers(0, 1000))
def test_without_a_conflict_it_is_the_mean(J, seed):
    J = J.abs() / J.norm(dim=1).max()
    close(weights("upgrad", J), torch.full((len(J),), 1 / len(J), dtype=torch.float64), 0)


@given(jacobians(2, 5, regular=True), st.integers(0, 1000))
def test_a_preference_weighs_the_projections(J, seed):
    J = J / J.norm(dim=1).max()
    p = random_jacobian(1, len(J), seed)[0].abs()
    each = [weights("upgrad", J, preference=[float(i == t) for i in range(len(J))]) for t in range(len(J))]
    close(weights("upgrad", J, preference=p.tolist()), p @ torch.stack(each), 1e-9)
    close(weights("upgrad", J, preference=[1 / len(J)] * len(J)), weights("upgrad", J), 0)


def test_heads_get_their_own_gradients():
    m = M()
    m.step(isonomy.build("upgrad", tasks=3))
    close(m.heads, [2, -2, 6])
    close(m.theta.grad, aggregate("upgrad", [[2, 0], [0, -1], [2, 2]]), 1e-12)
