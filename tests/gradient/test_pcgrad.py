import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.gradient.pcgrad import project
from tests.fixtures import A, B, E, M, aggregate, close, gramian_of, jacobians, tensor, weights


def surgery(J, orders):
    """The paper's algorithm on the gradients themselves."""
    total = torch.zeros_like(J[0])
    for i, others in enumerate(orders):
        p = J[i].clone()
        for j in others:
            product = p @ J[j]
            if product < 0:
                p = p - product / (J[j] @ J[j]) * J[j]
        total += p
    return total


def projected(J, orders):
    gramian = gramian_of(J)
    return project(gramian.cosines, gramian.norms, torch.tensor(orders))


def all_orders(tasks: int):
    """Every way to choose an order of the others for every task."""
    choices = [list(itertools.permutations([j for j in range(tasks) if j != i])) for i in range(tasks)]
    return itertools.product(*choices)


@given(jacobians(2, 8), st.randoms(use_true_random=False))
def test_the_form_on_cosines_is_the_papers_algorithm(J, random):
    J = J / J.norm(dim=1).max()
    others = [[j for j in range(len(J)) if j != i] for i in range(len(J))]
    orders = [random.sample(row, len(row)) for row in others]
    close(J.T @ projected(J, orders), surgery(J, orders), 1e-9)


@pytest.mark.parametrize(
    ("J", "options", "w"),
    [
        (A, {}, [1, 1]),
        (B, {}, [2.222222, 1.578947]),
        (E, {"order": "ascending"}, [1.4, 2.733333, 1.653333]),
        (E, {"order": "mean"}, [1.573333, 2.766667, 1.576667]),
    ],
)
def test_known_weights(J, options, w):
    close(weights("pcgrad", J, **options), w)
    close(aggregate("pcgrad", J, **options), tensor(w) @ tensor(J), 1e-5)


def test_known_weights_of_given_orders():
    close(projected(E, [[2, 1], [2, 0], [1, 0]]), [1.746667, 2.8, 1.5])
    # A task is not projected against itself, which would matter here.
    J = tensor([[2, 2, -1], [-3, -3, 2], [-3, -1, -3]])
    close(J.T @ projected(J, [[1, 2], [2, 0], [1, 0]]), [-1.873472, 0.250930, -3.024987])


@given(jacobians(2, 2))
def test_two_tasks_have_a_closed_form(J):
    (a, b), (_, c) = (J @ J.T).tolist()
    expected = [1, 1] if b >= 0 else [1 - b / a, 1 - b / c]
    torch.testing.assert_close(weights("pcgrad", J), tensor(expected), rtol=1e-9, atol=0)


def test_random_orders_are_orders_and_all_occur():
    possible = torch.stack([projected(E, orders) for orders in all_orders(3)])
    balancer = isonomy.build("pcgrad", tasks=3)
    G = tensor(E) @ tensor(E).T
    drawn = torch.stack([balancer.weights(G) for _ in range(300)])
    distance = (drawn[:, None] - possible).abs().amax(2)
    close(distance.amin(1), torch.zeros(300), 1e-12)
    assert set(distance.argmin(1).tolist()) == set(
        ((possible[:, None] - possible).abs().amax(2) < 1e-9).int().argmax(1).tolist()
    )
    close(drawn.mean(0), weights("pcgrad", E, order="mean"), 0.1)


def test_mean_is_the_expectation_over_all_orders():
    J = torch.cat([tensor(E), -tensor(E)[:1] + 0.3])
    every = torch.stack([projected(J, orders) for orders in all_orders(4)])
    close(weights("pcgrad", J, order="mean"), every.mean(0), 1e-12)


def test_seeds_and_steps_decide_the_orders():
    G = tensor(E) @ tensor(E).T
    one, same, other = (isonomy.build("pcgrad", tasks=3, seed=seed) for seed in (1, 1, 2))
    runs = [torch.stack([balancer.weights(G) for _ in range(20)]) for balancer in (one, same, other)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert len(runs[0].unique(dim=0)) > 1


def test_gradients_without_conflict_are_summed():
    close(weights("pcgrad", [[1, 0, 1], [0, 1, 0], [1, 1, 0]]), [1, 1, 1], 1e-12)


def test_heads_get_their_own_gradients():
    m = M()
    m.step(isonomy.build("pcgrad", tasks=3))
    # Only (0, -1) and (2, 2) conflict: they become (1, -1) / 2 and (2, 0).
    close(m.theta.grad, [2 + 0.5 + 2, -0.5])
    close(m.heads, [2, -2, 6])


def test_unusable_options():
    with pytest.raises(isonomy.IsonomyError, match="order"):
        isonomy.build("pcgrad", tasks=2, order="descending")
    with pytest.raises(isonomy.IsonomyError, match="6 tasks at most"):
        isonomy.build("pcgrad", tasks=7, order="mean")
    isonomy.build("pcgrad", tasks=6, order="mean")
