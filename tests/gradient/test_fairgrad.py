import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from tests.fixtures import OPPOSED, A, B, E, M, aggregate, close, jacobians, linear, tensor, weights


@pytest.mark.parametrize(
    ("J", "alpha", "w"),
    [
        (A, 0.5, [0.817631, 0.678211]),
        (B, 0.5, [0.742828, 0.525393]),
        (A, 2, [0.747898, 0.408425]),
        (B, 2, [0.471363, 0.319454]),
        (E, 2, [0.720116, 1.599910, 0.822256]),
        (E, 10, [0.712117, 1.680817, 0.845234]),
        ([[3, 4]], 2, [5 ** (-4 / 3)]),
        ([[3, 4]] * 3, 0.5, [75 ** (-1 / 3)] * 3),
        (B, 0, [0.5, 0.5]),
    ],
)
def test_known_weights(J, alpha, w):
    close(weights("fairgrad", J, alpha=alpha, max_norm=None), w)


@pytest.mark.parametrize(("J", "d"), [(B, [0.031274, 0.790817, 0.790817]), (E, [0.662578, -0.146740, 1.599910])])
def test_known_directions(J, d):
    close(aggregate("fairgrad", J, max_norm=None), d)
    clipped = tensor(d) / max(1, tensor(d).norm())
    close(aggregate("fairgrad", J), clipped)


@given(jacobians(regular=True), st.sampled_from([0.25, 0.5, 1, 2, 5, 20]))
def test_gains_are_a_power_of_the_weights(J, alpha):
    w = weights("fairgrad", J, alpha=alpha, max_norm=None)
    assert (w > 0).all()
    close((J @ (w @ J)) * w ** (1 / alpha), torch.ones(len(J)), 1e-8)


@given(jacobians(regular=True))
def test_alpha_1_is_the_nash_bargaining_solution(J):
    w = weights("fairgrad", J, alpha=1, max_norm=None)
    nash = weights("nash_mtl", J, max_norm=None)
    close(w / nash, torch.ones(len(J)), 1e-10)


def test_gains_get_closer_as_alpha_grows():
    J = tensor(E)
    spreads = []
    for alpha in (0.5, 1, 2, 5, 20):
        gains = J @ aggregate("fairgrad", J, alpha=alpha, max_norm=None)
        spreads.append(float(gains.max() / gains.min()))
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < 1.1
    close(weights("fairgrad", J, alpha=20, max_norm=None), [0.714286, 1.714286, 0.857143], 0.02)


def test_the_mean_keeps_all_tasks_when_some_are_left_out():
    balancer = isonomy.build("fairgrad", tasks=["a", "b"], alpha=0, max_norm=None, allow_missing=True)
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    balancer({"b": tensor([3, 4]) @ theta}, shared=[theta]).backward()
    close(theta.grad, [1.5, 2], 0)


@pytest.mark.parametrize(
    ("max_norm", "norm"), [(1.0, 1.0), (0.5, 0.5), (10.0, tensor([0.662578, -0.146740, 1.599910]).norm())]
)
def test_the_shared_gradient_is_clipped(max_norm, norm):
    assert float(aggregate("fairgrad", E, max_norm=max_norm).norm()) == pytest.approx(float(norm), abs=2e-6)


def test_heads_get_their_own_gradients():
    m = M()
    m.step(isonomy.build("fairgrad", tasks=3))
    close(m.heads, [2, -2, 6])
    close(m.theta.grad, aggregate("fairgrad", [[2, 0], [0, -1], [2, 2]]), 1e-12)


@given(jacobians(regular=True), st.sampled_from([0, 0.25, 0.5, 1, 2, 5, 20]))
def test_weighted_heads_get_the_weights(J, alpha):
    theta, heads, losses = linear(J)
    isonomy.build("fairgrad", len(J), alpha=alpha, heads="weighted")(losses, shared=[theta]).backward()
    got = torch.stack([head.grad for head in heads])
    close(got / weights("fairgrad", J, alpha=alpha, max_norm=None), torch.ones(len(J)), 1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1, 2, 5])
def test_without_a_solution_weighted_heads_keep_the_last_weights(alpha):
    balancer = isonomy.build("fairgrad", 2, alpha=alpha, heads="weighted")
    solution = weights("fairgrad", B, alpha=alpha, max_norm=None)
    for J, wanted in ((OPPOSED, [1, 1]), (B, solution), (OPPOSED, solution)):
        theta, heads, losses = linear(J)
        balancer(losses, shared=[theta]).backward()
        close(torch.stack([head.grad for head in heads]), wanted, 1e-9)


@pytest.mark.parametrize(
    "options", [{"alpha": 0.2}, {"alpha": 21}, {"alpha": -1}, {"alpha": float("nan")}, {"max_norm": 0}]
)
def test_unusable_options(options):
    with pytest.raises(isonomy.IsonomyError, match=f"fairgrad: {next(iter(options))}"):
        isonomy.build("fairgrad", tasks=2, **options)
