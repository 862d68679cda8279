import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.gradient import SDMGrad
from isonomy.gradient.sdmgrad import regularised
from tests.fixtures import A, B, E, F, close, gramian_of, jacobians, linear, random_jacobian, tensor, weights
from tests.solvers.test_simplex import brute_force


def objective(J, w, lam):
    return float((w @ J + lam * J.mean(0)).norm())


def official(J1, J2, w, lam, rate=10.0):
    """The authors' inner loop, on vectors."""
    scale = torch.stack([row @ other for row, other in zip(J1, J2, strict=True)]).clamp_min(0).sqrt().mean()
    velocity = torch.zeros_like(w)
    for _ in range(20):
        direction = (w + lam / len(w)) @ J2
        velocity = 0.5 * velocity + J1 @ direction / scale**2
        w = brute_force(w - rate * velocity)
    return w


@pytest.mark.parametrize(
    ("J", "exact", "aggregate", "vertex"),
    [
        (B, [0.63, 0.37], [0, 1, 1], [0, 1]),
        (E, [0.182609, 0.578261, 0.239130], [0.173913, -0.043478, 0.521739], [1, 0, 0]),
    ],
)
def test_known_values(J, exact, aggregate, vertex):
    J = tensor(J)
    close(regularised(gramian_of(J), len(J), 0.3), exact)
    close(isonomy.build("sdmgrad", len(J), inner="exact").aggregate(J), aggregate)
    balancer = isonomy.build("sdmgrad", len(J))
    close(balancer.aggregate(J), (tensor(vertex) @ J + 0.3 * J.mean(0)) / 1.3)
    close(balancer.stages[0].shares, vertex)


@given(jacobians(1, 6), st.sampled_from([0.0, 0.3, 5.0]))
def test_the_exact_weights_meet_the_conditions_of_the_minimum(J, lam):
    J = J / J.norm(dim=1).max()
    w = regularised(gramian_of(J), len(J), lam)
    assert (w >= 0).all()
    assert float(w.sum()) == pytest.approx(1)
    # w·∇ is the least of the gradient's entries: nothing is gained by moving towards any corner.
    gradient = J @ (w @ J + lam * J.mean(0))
    assert float(w @ gradient - gradient.min()) <= 1e-9 * (1 + lam)


@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.0]))
def test_the_exact_weights_of_two_tasks_by_a_grid(seed, lam):
    J = random_jacobian(2, 3, seed)
    grid = [tensor([k / 2000, 1 - k / 2000]) for k in range(2001)]
    best = min(objective(J, w, lam) for w in grid)
    assert best - 1e-3 < objective(J, regularised(gramian_of(J), 2, lam), lam) <= best + 1e-12


@pytest.mark.parametrize("J", [A, B, E, F], ids=list("ABEF"))
def test_between_mgda_and_the_mean(J):
    close(weights("sdmgrad", J, inner="exact", lam=0.0), weights("mgda", J), 1e-9)
    close(weights("sdmgrad", J, inner="exact", lam=1e9), tensor([1 / len(J)] * len(J)), 1e-8)


def test_a_gradient_that_the_mean_cancels():
    # g_1 + g₀ = 0, so all weight on the first task reaches zero.
    J = tensor([[1.0, 0.0], [-3.0, 0.0]])
    close(weights("sdmgrad", J, inner="exact", lam=1.0), [0.75, 0.25], 1e-12)
    close(isonomy.build("sdmgrad", 2, inner="exact", lam=1.0).aggregate(J), [0, 0], 1e-12)


@pytest.mark.parametrize("scale", [1e-10, 1e-5, 1e5])
@pytest.mark.parametrize("J", [A, B, E], ids=list("ABE"))
def test_the_official_steps_are_relative_to_the_gradients(J, scale):
    J = tensor(J)
    d, scaled = (isonomy.build("sdmgrad", len(J), inner_lr=0.1).aggregate(k * J) for k in (1, scale))
    close(scaled / scale, d, 1e-9)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=3), st.integers(1, 4), st.sampled_from([0.05, 10.0]))
def test_three_batches(seeds, tasks, rate):
    balancer = isonomy.build("sdmgrad", tasks, lam=0.4, inner_lr=rate)
    w = torch.full((tasks,), 1 / tasks, dtype=torch.float64)
    for seed in seeds:
        # Batches that resemble each other, as those of one distribution do.
        mean = random_jacobian(tasks, 4, seed)
        J = [mean + 0.1 * random_jacobian(tasks, 4, seed + k) for k in (1, 2, 3)]
        w = official(J[0], J[1], w, 0.4, rate)
        theta = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        heads = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(tasks)]
        batches = [[1 + row @ theta + h for row, h in zip(rows, heads, strict=True)] for rows in J]
        balancer(batches, shared=[theta]).backward()
        close(balancer.stages[0].shares, w, 1e-6)
        close(theta.grad, (w @ J[2] + 0.4 * J[2].mean(0)) / 1.4, 1e-6)
        close(torch.stack([head.grad for head in heads]), torch.ones(tasks), 1e-12)
        assert balancer.report.weights is None


def test_one_batch_reports_its_weights():
    balancer = isonomy.build("sdmgrad", 3, inner_lr=0.1)
    theta, _, losses = linear(E)
    balancer(losses, shared=[theta]).backward()
    close(balancer.report.weights @ tensor(E), theta.grad, 1e-12)
    close(balancer.report.weights * 1.3 - 0.1, balancer.stages[0].shares, 1e-12)


def test_absent_tasks_keep_their_share():
    balancer = isonomy.build("sdmgrad", 3, allow_missing=True)
    theta, _, losses = linear(E)
    balancer({"0": losses[0], "2": losses[2]}, shared=[theta]).backward()
    shares = balancer.stages[0].shares
    assert float(shares[1]) == 1 / 3
    assert float(shares.sum()) == pytest.approx(1)
    close(theta.grad, (1.5 * shares[[0, 2]] + 0.1) @ tensor(E)[[0, 2]] / 1.3, 1e-12)


def test_levels_and_batches():
    official, exact = isonomy.build("sdmgrad", 2), isonomy.build("sdmgrad", 2, inner="exact")
    assert (official.batches, official.levels, official.needs) == (3, ("parameters",), ("gramian", "jacobian"))
    assert (exact.batches, exact.levels, exact.needs) == (1, ("parameters", "features"), ("gramian",))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lam": -0.1}, "lam=-0.1"),
        ({"lam": float("nan")}, "lam=nan"),
        ({"inner": "exac"}, "did you mean 'exact'"),
        ({"inner_lr": 0.0}, "inner_lr=0.0"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        SDMGrad(**options)
