import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from tests.fixtures import (
    DEPENDENT,
    FAR_NORMS,
    A,
    B,
    E,
    M,
    aggregate,
    close,
    jacobians,
    random_jacobian,
    tensor,
    weights,
)

SCALES = {
    "min": lambda s: s.min(),
    "rmse": lambda s: s.square().mean().sqrt(),
    "median": lambda s: s.sort().values[(len(s) - 1) // 2],
}


def system(J, **options):
    """The aligned gradients: the aggregates of preferences for one task each."""
    return torch.stack([aggregate("aligned_mtl", J, preference=row.tolist(), **options) for row in torch.eye(len(J))])


def normal(J):
    return J / J.norm(dim=1).max()


@pytest.mark.parametrize(
    ("J", "scale", "w"),
    [
        (A, "min", [0.276393, 0.138197]),
        (B, "min", [0.559072, 0.408261]),
        (B, "rmse", [1.510866, 1.103306]),
        (E, "min", [0.224943, 0.414034, 0.241984]),
        (E, "rmse", [0.628511, 1.156850, 0.676127]),
        (E, "median", [0.595119, 1.095388, 0.640205]),
    ],
)
def test_known_weights(J, scale, w):
    close(weights("aligned_mtl", J, scale=scale), w)
    close(weights("aligned_mtl", J, scale=scale, preference=[1.0] * len(J)), len(J) * tensor(w), 2e-6)


@pytest.mark.parametrize(("J", "d"), [(A, [0.414590, 0.138197]), (B, [0.213279, 0.967333, 0.967333])])
def test_known_aggregates(J, d):
    close(aggregate("aligned_mtl", J), d)


@given(jacobians(regular=True), st.sampled_from(list(SCALES)))
def test_the_form_on_cosines_is_the_singular_value_form(J, scale):
    J = normal(J)
    U, s, Vh = torch.linalg.svd(J, full_matrices=False)
    expected = SCALES[scale](s) * U.mean(0) @ Vh
    d = aggregate("aligned_mtl", J, scale=scale)
    close((d - expected) / expected.norm(), torch.zeros_like(d), 1e-9)


@given(jacobians(1, 4, regular=True), st.sampled_from(list(SCALES)))
def test_aligned_gradients_are_orthogonal_and_equally_long(J, scale):
    J = normal(J)
    aligned, s = system(J, scale=scale), torch.linalg.svdvals(J)
    close(torch.linalg.svdvals(aligned) / SCALES[scale](s), torch.ones(len(J)), 1e-9)
    # The nearest such system: the polar factor is the one with which J makes a positive definite matrix.
    product = J @ aligned.T
    close((product - product.T) / product.norm(), torch.zeros(len(J), len(J)), 1e-9)
    assert float(torch.linalg.eigvalsh(product).min()) > 0


@pytest.mark.parametrize("ratio", [1e2, 1e5, 1e8])
def test_short_gradients_stay_in_the_system(ratio):
    J = random_jacobian(3, 6, 0)
    J[2] *= ratio
    aligned = system(J)
    close(torch.linalg.svdvals(aligned) / torch.linalg.svdvals(aligned).max(), torch.ones(3), 1e-9)
    unit = aligned / aligned.norm(dim=1, keepdim=True)
    # A gradient that dwarfs the others is aligned with itself; so are the others, seen across it.
    others = J[:2] - (J[:2] @ J[2:].T) / (J[2] @ J[2]) * J[2]
    U, s, Vh = torch.linalg.svd(others, full_matrices=False)
    close(unit, torch.cat([U @ Vh, J[2:] / J[2].norm()]), 10 / ratio + 1e-9)
    assert float(aligned.norm(dim=1).mean() / s.min()) == pytest.approx(1, abs=10 / ratio + 1e-9)


def test_norms_1e8_apart():
    u = tensor(B) / tensor(B).norm(dim=1, keepdim=True)
    # The short row without its part along the long one.
    across = tensor(B)[0] - (tensor(B)[0] @ u[1]) * u[1]
    close(aggregate("aligned_mtl", FAR_NORMS), (across + across.norm() * u[1]) / 2, 1e-6)


@given(jacobians(2, 6))
def test_dependent_gradients_are_aligned_within_their_span(J):
    J = normal(J)[:, :1] @ torch.ones(1, 3, dtype=torch.float64)  # Rank 1, with signs.
    s = torch.linalg.svdvals(J)[0]
    if (J.norm(dim=1) > 1e-8 * J.norm(dim=1).max()).all():
        close(system(J), J, 1e-7 * max(1.0, float(s)))


def test_known_dependent_gradients():
    close(aggregate("aligned_mtl", DEPENDENT), [2 / 27**0.5] * 2, 1e-12)
    close(torch.linalg.svdvals(system(DEPENDENT)), [1, 1], 1e-9)


def test_the_smallest_scale_makes_no_gradient_longer():
    for seed in range(50):
        J = random_jacobian(3, 5, seed, spread=1.0)
        assert (system(J).norm(dim=1) <= J.norm(dim=1) * (1 + 1e-9)).all()


def test_missing_tasks_take_their_preference_along():
    J = tensor(E)
    for preference, p in ((None, [1 / 3, 1 / 3]), ([3.0, 5.0, 1.0], [3, 1])):
        balancer = isonomy.build("aligned_mtl", tasks=["a", "b", "c"], preference=preference, allow_missing=True)
        theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        balancer({"a": 1 + J[0] @ theta, "c": 1 + J[2] @ theta}, shared=[theta]).backward()
        close(theta.grad, tensor(p) @ system(J[[0, 2]]), 1e-9)


def test_heads_get_their_own_gradients():
    m = M()
    m.step(isonomy.build("aligned_mtl", tasks=3))
    close(m.theta.grad, aggregate("aligned_mtl", [[2, 0], [0, -1], [2, 2]]), 1e-9)
    close(m.heads, [2, -2, 6])


def test_the_contract_with_a_preference():
    isonomy.check_balancer(
        lambda tasks: isonomy.build("aligned_mtl", tasks, preference=[1.0 + t for t in range(len(tasks))])
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scale": "max"}, "scale of aligned_mtl"),
        ({"preference": [1.0]}, "1 entries for 2 tasks"),
        ({"preference": [1.0, -1.0]}, "preference"),
        ({"preference": [1.0, float("nan")]}, "preference"),
        ({"preference": [0.0, 0.0]}, "not all 0"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        isonomy.build("aligned_mtl", tasks=2, **options)
