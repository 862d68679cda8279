import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.gradient import MoCo
from tests.fixtures import B, E, close, jacobians, linear, random_jacobian, tensor, weights
from tests.solvers.test_simplex import brute_force


def run(J, steps=1, **options):
    """The last λ and the last aggregate after steps on the same J."""
    J = tensor(J)
    balancer = isonomy.build("moco", len(J), **options)
    for _ in range(steps):
        d = balancer.aggregate(J)
    return balancer.stages[1].shares, d


def test_known_values():
    shares, d = run(B)
    close(shares, [0.625, 0.375])
    close(d, [-0.125, 0.5, 0.5])
    shares, d = run(B, steps=2)
    close(shares, [0.584516, 0.415484])
    close(d, [0.104794, 0.676777, 0.676777])
    close(run(E)[0], [0.325, 0.366667, 0.308333])


def test_known_values_of_libmtls_softmax():
    # It tracks g_t / ‖g_t‖ · ℓ_t.
    normalised = {key: tensor(J) / tensor(J).norm(dim=1, keepdim=True) for key, J in {"B": B, "E": E}.items()}
    J = normalised["B"] * tensor([[2], [0.5]])
    shares, d = run(J, simplex="softmax")
    close(shares, [0.488283, 0.511717])
    close(d, [-0.335841, 0.135842, 0.135842])
    close(run(J, steps=2, simplex="softmax")[0], [0.479534, 0.520466])
    shares, d = run(normalised["E"] * tensor([[2], [0.5], [1]]), simplex="softmax")
    close(shares, [0.326938, 0.337548, 0.335514])
    close(d, [0.296751, 0.035784, 0.048721])


@given(st.lists(st.integers(0, 10_000), min_size=3, max_size=3), st.integers(1, 4))
def test_steps_are_the_papers(seeds, tasks):
    beta, decay, gamma, gamma_decay, rho = 0.4, 0.7, 0.2, 0.3, 0.05
    balancer = isonomy.build("moco", tasks, beta=beta, beta_decay=decay, gamma=gamma, gamma_decay=gamma_decay, rho=rho)
    Y, w = torch.zeros(tasks, 5, dtype=torch.float64), torch.full((tasks,), 1 / tasks, dtype=torch.float64)
    for k, seed in enumerate(seeds, start=1):
        H = random_jacobian(tasks, 5, seed)
        Y = Y - beta / k**decay * (Y - H)
        w = brute_force(w - gamma / k**gamma_decay * (Y @ (Y.T @ w) + rho * w))
        close(balancer.aggregate(H), Y.T @ w, 1e-9)


@given(jacobians(1, 6))
def test_without_its_two_steps_it_is_the_mean(J):
    options = {"beta": 1.0, "beta_decay": 0.0, "gamma": 0.0, "rho": 0.0}
    close(run(J / J.abs().max(), steps=3, **options)[1], J.mean(0) / J.abs().max(), 1e-12)


@pytest.mark.parametrize("J", [B, E])
def test_ends_at_the_min_norm_point_of_constant_gradients(J):
    shares, d = run(J, steps=3000, gamma=0.02, gamma_decay=0.0)
    close(shares, weights("mgda", J), 1e-6)
    close(d, weights("mgda", J) @ tensor(J), 1e-5)


def test_softmax_draws_to_uniform_and_the_projection_does_not():
    for simplex, expected in (("softmax", [0.689974, 0.310026]), ("projection", [0.9, 0.1])):
        balancer = isonomy.Balancer(stage := MoCo(gamma=0.0, simplex=simplex), tasks=2)
        stage.shares.copy_(tensor([0.9, 0.1]))
        close(balancer.weights(torch.eye(2)), expected)


def test_huge_gradients_leave_a_point_of_the_simplex():
    shares, _ = run(1e15 * tensor(B))
    close(shares, [1, 0], 1e-12)


@pytest.mark.parametrize("simplex", ["projection", "softmax"])
def test_absent_tasks_keep_their_share(simplex):
    balancer = isonomy.build("moco", 3, allow_missing=True, simplex=simplex)
    stage = balancer.stages[1]
    stage.shares.copy_(tensor([0.5, 0.2, 0.3]))
    theta, _, losses = linear(E)
    balancer({"0": losses[0], "2": losses[2]}, shared=[theta]).backward()
    assert stage.shares[1] == 0.2
    assert stage.shares[0] != 0.5
    assert float(stage.shares.sum()) == pytest.approx(1)
    # The present ones are weighted as if they were all there are.
    close(theta.grad, 0.5 * (stage.shares[[0, 2]] / 0.8 @ tensor(E)[[0, 2]]))


@pytest.mark.parametrize("name", ["moco", "modo", "sdmgrad"])
def test_tasks_go_on_when_one_that_has_all_the_weight_is_absent(name):
    balancer = isonomy.build(name, 3, allow_missing=True)
    balancer.stages[-1].shares.copy_(tensor([0, 1, 0]))
    theta, _, losses = linear(E)
    balancer({"0": losses[0], "2": losses[2]}, shared=[theta]).backward()
    assert float(theta.grad.norm()) > 0.1
    assert balancer.stages[-1].shares.tolist() == [0, 1, 0]


def test_heads_get_their_own_gradients():
    theta, heads, losses = linear(B, scales=[1.0, 3.0])
    isonomy.build("moco", 2)(losses, shared=[theta]).backward()
    close(torch.stack([head.grad for head in heads]), [1, 3])


def test_needs_the_parameters():
    assert isonomy.build("moco", 2).levels == ("parameters",)
    with pytest.raises(isonomy.IsonomyError, match=r"use \.aggregate"):
        isonomy.build("moco", 2).weights(torch.eye(2))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"gamma": -0.1}, "gamma=-0.1"),
        ({"gamma_decay": float("inf")}, "gamma_decay=inf"),
        ({"rho": float("nan")}, "rho=nan"),
        ({"simplex": "soft"}, "did you mean 'softmax'"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        MoCo(**options)
