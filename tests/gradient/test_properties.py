"""What the gradient balancers share or do not share: symmetries, scales, and gradients in awkward positions."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import isonomy
from tests.fixtures import (
    DEPENDENT,
    FAR_NORMS,
    OPPOSED,
    OPPOSED_AND_ORTHOGONAL,
    UNEQUALLY_OPPOSED,
    ZERO_ROW,
    A,
    B,
    E,
    F,
    aggregate,
    close,
    jacobians,
    parallel,
    random_jacobian,
    rotation,
    tensor,
    weights,
)

# Name, options in which the method is a deterministic function of G, degree of its aggregate in the scale of J, and
# whether scales of single tasks leave its direction alone.
METHODS = [
    ("mgda", {}, 1, False),
    ("mgda", {"normalize": "l2"}, 1, False),
    ("mgda", {"normalize": "l2", "combine": "normalized"}, 0, True),
    ("mgda_free", {}, 1, False),
    ("pcgrad", {"order": "mean"}, 1, False),
    ("cagrad", {}, 1, False),
    ("cagrad", {"c": 1.0, "rescale": 0}, 1, False),
    ("imtl_g", {}, 1, True),
    ("nash_mtl", {}, 0, True),
    ("nash_mtl", {"max_norm": None}, 0, True),
    ("metabalance", {"groups": "model", "reference": "mean"}, 1, False),
    ("aligned_mtl", {}, 1, False),
    ("aligned_mtl", {"scale": "rmse"}, 1, False),
    ("aligned_mtl", {"scale": "median"}, 1, False),
    ("config", {}, 1, True),
    ("cr_mogm", {}, 1, False),
    ("fairgrad", {"max_norm": None}, -1 / 3, False),
    ("fairgrad", {"alpha": 0.5, "max_norm": None}, 1 / 3, False),
    ("fairgrad", {"alpha": 1, "max_norm": None}, 0, True),
    ("fairgrad", {"alpha": 0, "max_norm": None}, 1, False),
    ("upgrad", {}, 1, False),
    ("dualproj", {}, 1, False),
    ("sdmgrad", {"inner": "exact"}, 1, False),
    ("avgnorm", {}, 1, True),
    ("max_norm", {"eps": 0.0}, 1, True),
    ("gradnorm", {"alpha": 0.0}, 1, False),
]
method = pytest.mark.parametrize(
    ("name", "options", "degree", "invariant"), METHODS, ids=[f"{m[0]}-{i}" for i, m in enumerate(METHODS)]
)
regular = jacobians(1, 5, regular=True)


def normal(J):
    return J / J.norm(dim=1).max()


@method
@given(regular, st.randoms(use_true_random=False))
def test_permuted_tasks_have_permuted_weights(name, options, degree, invariant, J, random):
    J = normal(J)
    order = random.sample(range(len(J)), len(J))
    w, permuted = weights(name, J, **options), weights(name, J[order], **options)
    close((permuted - w[order]) / w.abs().max(), torch.zeros(len(J)), 1e-8)


@method
@given(regular, st.integers(-4, 4))
def test_degree_in_the_scale_of_all_gradients(name, options, degree, invariant, J, exponent):
    J = normal(J)
    d, scaled = aggregate(name, J, **options), aggregate(name, 10.0**exponent * J, **options)
    close((scaled / 10.0 ** (degree * exponent) - d) / d.norm(), torch.zeros_like(d), 1e-8)


@method
@given(regular, st.integers(0, 10_000))
def test_only_angles_and_norms_matter(name, options, degree, invariant, J, seed):
    # Rotated, or every parameter twice.
    J = normal(J)
    w = weights(name, J, **options)
    turned = weights(name, J @ rotation(J.shape[1], seed), **options)
    doubled = weights(name, torch.cat([J, J], 1) / 2**0.5, **options)
    for other in (turned, doubled):
        close((other - w) / w.abs().max(), torch.zeros(len(J)), 1e-8)


@method
@given(regular, st.integers(0, 10_000))
def test_aggregate_is_the_weighted_sum(name, options, degree, invariant, J, seed):
    J = normal(J)
    close(aggregate(name, J, **options), weights(name, J, **options) @ J, 1e-10)


@method
def test_direction_under_scales_of_single_tasks(name, options, degree, invariant):
    cosines = []
    for seed in range(20):
        J = random_jacobian(3, 5, seed)
        k = 10 ** random_jacobian(1, 3, seed + 1)[0]
        cosines.append(parallel(aggregate(name, J, **options), aggregate(name, k[:, None] * J, **options)))
    if invariant:
        assert min(cosines) == pytest.approx(1, abs=1e-9)
    else:
        assert min(cosines) < 0.999


@pytest.mark.parametrize(("name", "options"), [("pcgrad", {"order": "mean"}), ("upgrad", {})])
@given(jacobians(1, 5, regular=True), st.integers(0, 1000))
def test_two_projections_are_linear_in_the_scales_of_tasks(name, options, J, seed):
    J = normal(J)
    first, second = random_jacobian(2, len(J), seed).abs() + 0.1

    def d(k):
        return aggregate(name, k[:, None] * J, **options)

    close(d(first) + d(second), d(first + second), 1e-9)


@given(jacobians(2, 2))
def test_pcgrad_of_two_tasks_is_twice_upgrad(J):
    J = normal(J)
    close(aggregate("pcgrad", J), 2 * aggregate("upgrad", J), 1e-9)


@given(jacobians(2, 2))
def test_two_tasks_are_bisected_by_four_methods(J):
    u = J / J.norm(dim=1, keepdim=True)
    assume(float(u.sum(0).norm()) > 1e-2)
    for name, options in (("imtl_g", {}), ("nash_mtl", {}), ("max_norm", {"eps": 0.0}), ("avgnorm", {})):
        d = aggregate(name, J, **options)
        if d.norm() > 1e-6 * J.norm() or name == "nash_mtl":
            assert parallel(d, u.sum(0)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "name", ["mgda", "mgda_free", "imtl_g", "nash_mtl", "config", "fairgrad", "upgrad", "dualproj"]
)
@given(regular)
def test_no_task_is_harmed(name, J):
    J = normal(J)
    d = aggregate(name, J)
    assert float((J @ d / J.norm(dim=1)).min()) >= -1e-9


# Aggregates of every method (CAGrad not rescaled, Nash not clipped) in awkward positions.
SETTINGS = {
    "mgda": {},
    "mgda_free": {},
    "pcgrad": {},
    "gradvac": {"order": "ascending"},
    "metabalance": {"groups": "model"},
    "aligned_mtl": {},
    "config": {},
    "cr_mogm": {},
    "cagrad": {"rescale": 0},
    "imtl_g": {},
    "nash_mtl": {"max_norm": None},
    "fairgrad": {"max_norm": None},
    "upgrad": {},
    "dualproj": {},
    "sdmgrad": {"inner": "exact"},
    "avgnorm": {},
    "max_norm": {},
    "gradnorm": {"alpha": 0.0},
}
SIX = tensor([6, 1, 1])
G = tensor([3, 4])
NO_GRADIENT = dict.fromkeys(SETTINGS, (0, 0, 0))
POSITIONS = {
    # A task without a gradient is left out; means still divide by the number of all tasks.
    "zero row": (
        ZERO_ROW,
        dict.fromkeys(SETTINGS, SIX)
        | {"cagrad": 0.75 * SIX, "aligned_mtl": 0.5 * SIX, "nash_mtl": (0.97333, 0.16222, 0.16222)}
        | {"upgrad": 0.5 * SIX, "dualproj": 0.5 * SIX, "fairgrad": 38 ** (-2 / 3) * SIX}
        | {"sdmgrad": 1.15 / 1.3 * SIX},
    ),
    "all zero": ([[0, 0, 0], [0, 0, 0]], NO_GRADIENT),
    "identical": (
        [[3, 4]] * 3,
        {"mgda": G, "mgda_free": G, "pcgrad": 3 * G, "cagrad": 1.5 * G, "imtl_g": G, "nash_mtl": 3**0.5 * G / 5}
        | {"avgnorm": 9 * G, "max_norm": 3 * G, "gradnorm": 3 * G}
        | {"gradvac": 3 * G, "metabalance": 3 * G, "aligned_mtl": G, "config": 3 * G, "cr_mogm": G}
        | {"upgrad": G, "dualproj": G, "fairgrad": 3 * 75 ** (-2 / 3) * G, "sdmgrad": G},
    ),
    "opposed": (OPPOSED, NO_GRADIENT),
    "unequally opposed": (
        UNEQUALLY_OPPOSED,
        NO_GRADIENT
        | {"cagrad": (0.25, 0.5, 0.5), "gradnorm": (1, 2, 2)}
        | {"metabalance": (0.3, 0.6, 0.6), "aligned_mtl": (0.5, 1, 1)},
    ),
    "opposed and orthogonal": (
        OPPOSED_AND_ORTHOGONAL,
        dict.fromkeys(SETTINGS, (0, 1))
        | {"mgda": (0, 0), "mgda_free": (0, 0), "cagrad": (0, 1 / 3)}
        | {"aligned_mtl": (0, 1 / 3), "cr_mogm": (0, 0), "upgrad": (0, 1 / 3), "dualproj": (0, 1 / 3)}
        | {"sdmgrad": (0, 0.1 / 1.3)},
    ),
    "dependent": (
        DEPENDENT,
        {"mgda": (0.5, 0.5), "mgda_free": (0, 0), "pcgrad": (2, 2), "cagrad": (1, 1), "imtl_g": (2 / 3, 2 / 3)}
        | {"nash_mtl": (1.22474, 1.22474), "avgnorm": (4.828427, 4.828427), "max_norm": (2.414214, 2.414214)}
        | {"gradnorm": (2, 2), "gradvac": (2, 2), "metabalance": (1.794975, 1.794975), "config": (2, 2)}
        | {"aligned_mtl": (0.384900, 0.384900), "cr_mogm": (0.5, 0.5)}
        | {"upgrad": (2 / 3, 2 / 3), "dualproj": (2 / 3, 2 / 3), "fairgrad": (1.07722, 1.07722)}
        | {"sdmgrad": (0.7 / 1.3, 0.7 / 1.3)},
    ),
    "norms 1e8 apart": (
        FAR_NORMS,
        {
            "mgda": (-0.52632, 1.57895, 1.57895),
            "cr_mogm": (-0.52632, 1.57895, 1.57895),
            "pcgrad": (1.11111e8, 2.22222e8, 2.22222e8),
            "gradvac": (1.11111e8, 2.22222e8, 2.22222e8),
            "metabalance": (1.8e8, 3e7, 3e7),
            "config": (9.40680e6, 1.226483e8, 1.226483e8),
            "cagrad": (1.54703e8, 8.63242e7, 8.63242e7),
            "imtl_g": (0.12948, 1.68825, 1.68825),
            "nash_mtl": (0.07658, 0.99853, 0.99853),
            "fairgrad": (-0.17392, 0.52187, 0.52187),
            "upgrad": (5.55556e7, 1.11111e8, 1.11111e8),
            "dualproj": (5.55556e7, 1.11111e8, 1.11111e8),
            "sdmgrad": (6.923077e7, 1.153846e7, 1.153846e7),
            "gradnorm": (6e8, 1e8, 1e8),
        },
    ),
    "one task": (
        [[3, 4]],
        dict.fromkeys(SETTINGS, G) | {"cagrad": 1.5 * G, "nash_mtl": G / 5, "fairgrad": (0.35088, 0.46784)},
    ),
}


@pytest.mark.parametrize(
    ("J", "name", "expected"),
    [
        pytest.param(J, name, expected, id=f"{name}: {position}")
        for position, (J, table) in POSITIONS.items()
        for name, expected in table.items()
    ],
)
def test_awkward_positions(J, name, expected):
    close(aggregate(name, J, **SETTINGS[name]), expected, 1e-5)


@pytest.mark.parametrize("name", ["avgnorm", "max_norm"])
def test_norm_balancers_bisect_norms_that_are_1e8_apart(name):
    u = tensor(B) / tensor(B).norm(dim=1, keepdim=True)
    assert parallel(aggregate(name, FAR_NORMS, **SETTINGS[name]), u.sum(0)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 1e5])
@pytest.mark.parametrize("J", [A, B, E, F], ids=list("ABEF"))
@pytest.mark.parametrize(("name", "options", "degree", "invariant"), METHODS)
def test_small_and_large_gradients_give_the_scaled_result(name, options, degree, invariant, J, scale):
    expected = aggregate(name, J, **options)
    close(aggregate(name, scale * tensor(J), **options) / scale**degree, expected, 1e-9)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "gradnorm"])
def test_a_task_without_a_gradient_has_weight_0_and_trains_its_head(name):
    J = tensor([[0, 0], [3, 4], [4, -3]])
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    heads = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in J]
    balancer = isonomy.build(name, tasks=3, **SETTINGS[name])
    balancer([1 + row @ theta + head for row, head in zip(J, heads, strict=True)], shared=[theta]).backward()
    assert balancer.report.weights[0] == 0
    assert heads[0].grad == 1
    assert theta.grad.isfinite().all()
