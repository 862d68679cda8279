import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.gradient import MoDo
from tests.fixtures import A, B, E, close, linear, random_jacobian, tensor, weights
from tests.solvers.test_simplex import brute_force


def two_batches(J1, J2):
    """θ, the heads and the losses of two batches with these gradients."""
    J1, J2 = tensor(J1), tensor(J2)
    theta = torch.zeros(J1.shape[1], dtype=torch.float64, requires_grad=True)
    heads = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in J1]
    return theta, heads, [[1 + row @ theta + h for row, h in zip(J, heads, strict=True)] for J in (J1, J2)]


@pytest.mark.parametrize(
    ("J", "w"), [(A, [0.525, 0.475]), (B, [1, 0]), (E, [0.3, 0.466667, 0.233333])], ids=list("ABE")
)
def test_known_weights(J, w):
    J = tensor(J)
    balancer = isonomy.build("modo", len(J))
    d = balancer.aggregate(J)
    close(balancer.stages[0].shares, w)
    close(d, balancer.stages[0].shares @ J, 1e-12)


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=4), st.integers(1, 4))
def test_steps_on_two_batches_are_the_papers(seeds, tasks):
    gamma, rho = 0.03, 0.2
    balancer = isonomy.build("modo", tasks, gamma=gamma, rho=rho)
    w = torch.full((tasks,), 1 / tasks, dtype=torch.float64)
    for seed in seeds:
        J1, J2 = random_jacobian(tasks, 4, seed), random_jacobian(tasks, 4, seed + 1)
        w = brute_force(w - gamma * (J1 @ (J2.T @ w) + rho * w))
        theta, heads, batches = two_batches(J1, J2)
        balancer(batches, shared=[theta]).backward()
        close(balancer.report.weights, w, 1e-9)
        close(theta.grad, w @ (J1 + J2) / 2, 1e-9)
        close(torch.stack([head.grad for head in heads]), torch.ones(tasks), 1e-12)


def test_one_batch_is_the_same_batch_twice():
    one, two = isonomy.build("modo", 3), isonomy.build("modo", 3)
    for seed in range(3):
        J = random_jacobian(3, 4, seed)
        theta, _, (losses, again) = two_batches(J, J)
        two([losses, again], shared=[theta]).backward()
        close(one.aggregate(J), theta.grad, 1e-12)


def test_independent_batches_take_the_noise_out_of_the_weights():
    # Gradients are a mean plus or minus a noise; all combinations of what two batches may draw.
    mean, noise = random_jacobian(2, 4, 0), random_jacobian(2, 4, 1)
    seen = []
    for first, second in itertools.product((-1, 1), repeat=2):
        stage = MoDo(gamma=1e-3, rho=0.0)
        balancer = isonomy.Balancer(stage, tasks=2)
        theta, _, batches = two_batches(mean + first * noise, mean + second * noise)
        balancer(batches, shared=[theta])
        seen.append((first == second, stage.shares - 0.5))
    independent = torch.stack([moved for _, moved in seen]).mean(0)
    single = torch.stack([moved for same, moved in seen if same]).mean(0)

    def moved(G):
        return brute_force(0.5 - 1e-3 * G.sum(1) / 2) - 0.5

    close(independent, moved(mean @ mean.T), 1e-12)
    close(single, moved(mean @ mean.T + noise @ noise.T), 1e-12)
    assert float((independent - single).abs().max()) > 1e-5


@pytest.mark.parametrize("J", [A, B, E], ids=list("ABE"))
def test_ends_at_the_min_norm_point_without_noise(J):
    balancer = isonomy.build("modo", len(J), gamma=0.02, rho=0.0)
    for _ in range(2000):
        balancer.aggregate(tensor(J))
    close(balancer.stages[0].shares, weights("mgda", J), 1e-6)


def test_gamma_0_is_the_mean():
    close(isonomy.build("modo", 3, gamma=0.0).aggregate(tensor(E)), tensor(E).mean(0), 1e-12)


def test_absent_tasks_keep_their_share():
    balancer = isonomy.build("modo", 3, allow_missing=True)
    theta, _, losses = linear(E)
    balancer({"0": losses[0], "2": losses[2]}, shared=[theta]).backward()
    shares = balancer.stages[0].shares
    # G of the two is ((5, -1), (-1, 10)): (1/2, 1/2) moves by -0.1 (2 + 1/20, 4.5 + 1/20), back to a sum of 1.
    w = tensor([5 / 8, 3 / 8])
    close(balancer.report.weights[[0, 2]], w, 1e-12)
    close(shares, [w[0] * 2 / 3, 1 / 3, w[1] * 2 / 3], 1e-12)
    close(theta.grad, w @ tensor(E)[[0, 2]], 1e-12)


def test_works_at_the_parameters_alone_and_on_two_batches_at_most():
    balancer = isonomy.build("modo", 2)
    assert balancer.levels == ("parameters",)
    assert balancer.batches == 2
    theta, _, (losses, _) = two_batches(B, B)
    with pytest.raises(isonomy.IsonomyError, match="takes one batch or 2"):
        balancer([losses] * 3, shared=[theta])


@pytest.mark.parametrize("options", [{"gamma": -1.0}, {"rho": -0.1}, {"gamma": float("nan")}, {"rho": float("inf")}])
def test_unusable_options(options):
    with pytest.raises(isonomy.IsonomyError, match=f"modo: {next(iter(options))}="):
        MoDo(**options)
