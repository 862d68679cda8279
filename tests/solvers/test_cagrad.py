import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isonomy.solvers import cagrad, min_norm
from tests.fixtures import (
    OPPOSED,
    OPPOSED_AND_ORTHOGONAL,
    UNEQUALLY_OPPOSED,
    B,
    E,
    close,
    gramian_of,
    jacobians,
    random_jacobian,
    tensor,
)

RADII = (0.1, 0.5, 0.9, 1.5)


def gap(J, radius: float) -> tuple[float, float]:
    """Primal-dual gap and ‖x‖ − κ, relative; the dual bound is w·(Jg₀) + κ‖Jᵀw‖ for any w on the simplex."""
    J = tensor(J)
    gramian = gramian_of(J)
    v = cagrad(gramian, len(J), radius)
    assert (v >= 0).all()
    mean = J.mean(0)
    kappa = radius * float(mean.norm())
    dual = [min_norm(gramian)] + ([v / v.sum()] if v.sum() > 0 else [])
    bound = min(float(w @ (J @ mean) + kappa * (J.T @ w).norm()) for w in dual)
    size = float(mean.norm()) * float(J.norm(dim=1).max())
    return (bound - float((J @ (mean + J.T @ v)).min())) / size, float((J.T @ v).norm()) / kappa - 1


@pytest.mark.parametrize("tasks", [2, 3, 10, 40, 100])
@pytest.mark.parametrize("spread", [0, 8])
@pytest.mark.parametrize("share", [1.5, 0.7], ids=["regular", "deficient"])
def test_primal_and_dual_meet(tasks, spread, share):
    J = random_jacobian(tasks, 2 * tasks, 3, rank=max(2, int(share * tasks)), spread=spread)
    for radius in (0.5, 1.5) if tasks < 40 else (0.5,):
        between, outside = gap(J, radius)
        assert abs(between) <= 1e-9
        assert outside <= 1e-9


@given(jacobians(2), st.sampled_from(RADII))
def test_primal_and_dual_meet_at_any_shape_rank_and_scale(J, radius):
    between, outside = gap(J, radius)
    assert abs(between) <= 4e-9
    assert outside <= 1e-9


@given(jacobians(2, 4, regular=True), st.sampled_from(RADII))
def test_no_direction_of_the_dual_is_better(J, radius):
    # Every point of a grid on the simplex gives a direction in the ball; none lifts the worst task higher.
    J = J / J.norm(dim=1).max()
    mean = J.mean(0)
    kappa = radius * float(mean.norm())
    reached = float((J @ (mean + J.T @ cagrad(gramian_of(J), len(J), radius))).min())
    for point in itertools.product(range(9), repeat=len(J)):
        x = J.T @ tensor(point)
        if x.norm() > 0:
            assert float((J @ (mean + kappa * x / x.norm())).min()) <= reached + 1e-10


def test_beats_random_directions_of_the_ball():
    for seed, radius in itertools.product(range(3), RADII):
        J = random_jacobian(4, 3, seed)
        mean = J.mean(0)
        kappa = radius * float(mean.norm())
        reached = float((J @ (mean + J.T @ cagrad(gramian_of(J), 4, radius))).min())
        x = random_jacobian(5000, 3, seed + 1)
        d = mean + kappa * x / x.norm(dim=1, keepdim=True)
        best = float((d @ J.T).min(1).values.max())
        assert best <= reached + 1e-12
        assert reached - best <= 0.1 * kappa * float(J.norm(dim=1).max())


@pytest.mark.parametrize(
    ("J", "radius", "direction"),
    [
        (B, 0.5, [0.183503, 1.204124, 1.204124]),
        (E, 0.5, [0.430964, -0.097631, 0.569036]),
        (OPPOSED, 0.5, [0, 0, 0]),
        (UNEQUALLY_OPPOSED, 0.5, [0.25, 0.5, 0.5]),
        (UNEQUALLY_OPPOSED, 1.0, [0, 0, 0]),
        (UNEQUALLY_OPPOSED, 3.0, [0, 0, 0]),
        (OPPOSED_AND_ORTHOGONAL, 0.5, [0, 1 / 3]),
        ([[3, 4]], 0.5, [4.5, 6]),
        ([[3, 4]] * 3, 0.5, [4.5, 6]),
    ],
)
def test_known_directions(J, radius, direction):
    J = tensor(J)
    close(J.mean(0) + J.T @ cagrad(gramian_of(J), len(J), radius), direction)


def test_a_radius_of_zero_corrects_nothing():
    assert torch.equal(cagrad(gramian_of(E), 3, 0.0), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_stationary_points_end(radius):
    # 40 gradients in 12 dimensions hold 0 in their hull: levels above 0 cannot be reached, and trying them must end.
    for seed in range(2):
        J = random_jacobian(40, 12, seed, spread=2)
        between, outside = gap(J, radius)
        assert abs(between) <= 4e-9
        assert outside <= 1e-9


def test_the_mean_keeps_all_tasks_when_some_are_left_out():
    J = tensor([[6, 1, 1]])
    v = cagrad(gramian_of(J), 2, 0.5)
    close(J.T @ v, J[0] / 4)
