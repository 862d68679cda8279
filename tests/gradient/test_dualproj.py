import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from tests.fixtures import A, B, E, M, aggregate, close, jacobians, random_jacobian, tensor, weights
from tests.gradient.test_upgrad import shortest_above


@pytest.mark.parametrize(
    ("J", "w"),
    [(A, [0.5, 0.5]), (B, [0.611111, 0.5]), (E, [0.333333, 0.555556, 0.333333]), ([[3, 4]], [1])],
)
def test_known_weights(J, w):
    close(weights("dualproj", J), w)


@pytest.mark.parametrize(("J", "gains"), [(B, [0, 5.555556]), (E, [0.777778, 0, 0.777778])])
def test_known_gains(J, gains):
    close(tensor(J) @ aggregate("dualproj", J), gains)


@given(jacobians(2, 4, regular=True))
def test_agrees_with_brute_force(J):
    J = J / J.norm(dim=1).max()
    u = torch.full((len(J),), 1 / len(J), dtype=torch.float64)
    close(aggregate("dualproj", J), shortest_above(J @ J.T, u) @ J, 1e-9)


@given(jacobians(1, 6), st.integers(0, 1000))
def test_it_is_the_closest_direction_that_harms_no_task(J, seed):
    J = J / J.norm(dim=1).max()
    u = J / J.norm(dim=1, keepdim=True)
    w, mean = weights("dualproj", J), J.mean(0)
    d = w @ J
    assert float(w.min()) >= 1 / len(J)
    assert float((u @ d).min()) >= -1e-9
    # The added part is at a right angle to d, and no other direction of the cone is closer to the mean.
    assert float((d - mean) @ d) == pytest.approx(0, abs=1e-9)
    others = random_jacobian(200, J.shape[1], seed)
    others = others[((others @ u.T) >= 0).all(1)]
    assert float(((others - d) @ (mean - d)).max() if len(others) else 0.0) <= 1e-9


@given(jacobians(2, 5, regular=True), st.integers(0, 1000))
def test_a_preference_is_the_mean_that_is_projected(J, seed):
    J = J / J.norm(dim=1).max()
    p = random_jacobian(1, len(J), seed)[0].abs()
    close(aggregate("dualproj", J, preference=p.tolist()), shortest_above(J @ J.T, p) @ J, 1e-8)


def test_heads_get_their_own_gradients():
    m = M()
    m.step(isonomy.build("dualproj", tasks=3))
    close(m.heads, [2, -2, 6])
    close(m.theta.grad, aggregate("dualproj", [[2, 0], [0, -1], [2, 2]]), 1e-12)
