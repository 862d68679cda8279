import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import isonomy
from tests.fixtures import (
    DEPENDENT,
    OPPOSED_AND_ORTHOGONAL,
    A,
    B,
    E,
    F,
    M,
    aggregate,
    close,
    jacobians,
    parallel,
    random_jacobian,
    tensor,
    weights,
)


@pytest.mark.parametrize(
    ("J", "w", "d"),
    [
        (A, [0.585786, 0.414214], [1, 0.414214]),
        (B, [0.592330, 0.407670], [0.076697, 1, 1]),
        (E, [0.217880, 0.512054, 0.270066], [0.193772, -0.080263, 0.512054]),
        (OPPOSED_AND_ORTHOGONAL, [0, 0, 1], [0, 1]),
    ],
)
def test_known_weights(J, w, d):
    close(weights("imtl_g", J), w)
    close(aggregate("imtl_g", J), d)


def test_the_projections_of_a_known_bisector():
    close(tensor(E) @ aggregate("imtl_g", E) / tensor(E).norm(dim=1), [0.137420] * 3)


@given(jacobians(regular=True))
def test_projections_on_unit_gradients_are_equal_and_positive(J):
    J = J / J.norm(dim=1).max()
    d = aggregate("imtl_g", J)
    projections = J @ d / J.norm(dim=1)
    close(projections / projections.mean(), torch.ones(len(J)), 1e-7)
    assert (projections > 0).all()


@given(jacobians(2, regular=True))
def test_agrees_with_the_papers_formula_up_to_the_guard(J):
    # w_2..T = g_1 Uᵀ (D Uᵀ)⁻¹ with rows g_1 - g_t of D and u_1 - u_t of U.
    J = J / J.norm(dim=1).max()
    u = J / J.norm(dim=1, keepdim=True)
    D, U = J[0] - J[1:], u[0] - u[1:]
    rest = torch.linalg.solve((D @ U.T).T, U @ J[0])
    paper = torch.cat([1 - rest.sum()[None], rest])
    w = weights("imtl_g", J)
    if float(w.sum()) > 0.999:
        close(w / paper.abs().max(), paper / paper.abs().max(), 1e-6)
    else:
        assert parallel(w, paper) == pytest.approx(-1, abs=1e-6)


def test_the_sign_guard_keeps_a_direction_of_descent():
    # The closed form's weights sum to 1 as (-2.907246, 5.300160, -1.392914), and all three losses would rise.
    w, d = weights("imtl_g", F), aggregate("imtl_g", F)
    close(w, [0.30283, -0.55208, 0.14509], 1e-5)
    close(d, [-0.05357, -0.14509, 0.01265], 1e-5)
    close(tensor(F) @ d, [0.11980, 0.05357, 0.11980], 1e-5)
    close(w.abs().sum(), 1, 1e-12)


def test_descent_for_every_draw():
    guarded = 0
    for seed in range(300):
        J = random_jacobian(3, 3, seed, spread=1.5)
        if torch.linalg.cond(J) < 1e4:
            guarded += bool(weights("imtl_g", J).sum() < 0.999)
            assert (J @ aggregate("imtl_g", J) > 0).all()
    assert guarded > 0


@given(jacobians(2, regular=True), st.integers(0, 1000))
def test_scales_of_the_tasks_do_not_turn_it(J, seed):
    k = 10 ** random_jacobian(1, len(J), seed)[0]
    assert parallel(aggregate("imtl_g", J), aggregate("imtl_g", k[:, None] * J)) == pytest.approx(1, abs=1e-9)


def test_known_rescaled_weights():
    k = tensor([1, 2, 4])
    expected = tensor([0.217880, 0.512054, 0.270066]) / k
    close(weights("imtl_g", k[:, None] * tensor(E)), expected / expected.sum())


@given(jacobians(2, 2))
def test_two_tasks_bisect(J):
    u = J / J.norm(dim=1, keepdim=True)
    assume(float(u.sum(0).norm()) > 1e-3)
    n = J.norm(dim=1)
    close(weights("imtl_g", J), n.flip(0) / n.sum(), 1e-7)


def test_dependent_gradients():
    close(aggregate("imtl_g", DEPENDENT), [2 / 3, 2 / 3])
    close(weights("imtl_g", [[3, 4]] * 3), [1 / 3] * 3)


def test_duplicates_share_their_weight():
    # Singular cosines whose range holds a bisector: the smallest eigenvalues are rounding and must not count.
    for seed in range(10):
        J = random_jacobian(4, 6, seed)[[0, 1, 2, 3, 0, 1, 1]]
        w, d = weights("imtl_g", J), aggregate("imtl_g", J)
        close(w[[0, 1, 1]], w[[4, 5, 6]], 1e-9)
        projections = J @ d / J.norm(dim=1)
        close(projections / projections[0], [1] * 7, 1e-9)


def test_heads_get_their_own_gradients():
    m = M()
    m.step(isonomy.build("imtl_g", tasks=3))
    close(m.heads, [2, -2, 6])
    close(m.theta.grad, aggregate("imtl_g", [[2, 0], [0, -1], [2, 2]]), 1e-9)


def test_feature_level_comes_first():
    assert isonomy.build("imtl_g", tasks=2).levels == ("features", "parameters")
