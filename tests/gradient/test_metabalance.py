import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from tests.fixtures import A, B, E, M, aggregate, close, jacobians, random_jacobian, tensor, weights


def stage_of(balancer):
    return balancer.stages[0]


def split_step(balancer, J, sizes):
    parts = [torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    balancer([1 + row @ torch.cat(parts) for row in J], shared=parts).backward()
    return [part.grad for part in parts]


def published(steps, relax, beta):
    """The paper's algorithm at one tensor: an aggregate for each step's gradients."""
    averages = torch.zeros(len(steps[0]), dtype=torch.float64)
    for J in steps:
        averages = beta * averages + (1 - beta) * J.norm(dim=1)
        total = J[0].clone()
        for g, m in zip(J[1:], averages[1:], strict=True):
            total += relax * g * averages[0] / m + (1 - relax) * g
        yield total


@pytest.mark.parametrize(("J", "w"), [(A, [1, 0.794975]), (B, [1, 0.781773]), (E, [1, 1.203696, 0.794975])])
def test_known_weights_of_the_first_step(J, w):
    close(weights("metabalance", J, groups="model"), w)
    close(aggregate("metabalance", J), tensor(w) @ tensor(J))


def test_known_aggregate():
    close(aggregate("metabalance", B), [0.690638, 1.781773, 1.781773])


@pytest.mark.parametrize(("relax", "beta"), [(0.7, 0.9), (1.0, 0.0), (0.2, 0.5)])
def test_steps_are_the_papers_at_every_tensor(relax, beta):
    steps = [random_jacobian(3, 7, seed, spread=2.0) for seed in range(10)]
    balancer = isonomy.build("metabalance", tasks=3, relax=relax, beta=beta)
    expected = zip(*(published([J.split((4, 3), 1)[k] for J in steps], relax, beta) for k in range(2)), strict=True)
    for J, aggregates in zip(steps, expected, strict=True):
        for gradient, wanted in zip(split_step(balancer, J, (4, 3)), aggregates, strict=True):
            close(gradient, wanted, 1e-12)


def test_the_model_as_one_group():
    steps = [random_jacobian(3, 7, seed, spread=2.0) for seed in range(5)]
    balancer = isonomy.build("metabalance", tasks=3, groups="model")
    for J, wanted in zip(steps, published(steps, 0.7, 0.9), strict=True):
        close(torch.cat(split_step(balancer, J, (4, 3))), wanted, 1e-12)


@given(jacobians(), st.integers(0, 5))
def test_fully_balanced_gradients_have_the_targets_norm(J, position):
    target = position % len(J)
    n = J.norm(dim=1)
    w = weights("metabalance", J, reference=target, relax=1.0, groups="model")
    close(w * n / n[target], torch.ones(len(J)), 1e-12)


@given(jacobians())
def test_the_largest_norm_for_all_is_max_norm(J):
    w = weights("metabalance", J, reference="max", relax=1.0, beta=0.0, groups="model")
    expected = weights("max_norm", J, eps=0.0)
    torch.testing.assert_close(w, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("reference", "norm"), [("mean", 5), ("max", 10), ("min", 2), (1, 10), (2, 2)])
def test_references(reference, norm):
    J = tensor([[3, 0], [0, 10], [2, 0]])
    w = weights("metabalance", J, reference=reference, relax=0.5, groups="model")
    close(w, 0.5 * norm / J.norm(dim=1) + 0.5, 1e-12)


@pytest.mark.parametrize(
    ("strategy", "w"), [("reduce", [1, 1, 0.65]), ("enlarge", [1, 1.5, 1]), ("both", [1, 1.5, 0.65])]
)
def test_strategies(strategy, w):
    J = tensor([[3, 0], [0, 1.5], [10, 0]])
    close(weights("metabalance", J, strategy=strategy, relax=0.5, groups="model"), w, 1e-12)


def test_where_the_target_gives_nothing_gradients_stay_as_they_are():
    J = random_jacobian(3, 7, 0)
    J[0, :4] = 0
    first, second = split_step(isonomy.build("metabalance", tasks=3, relax=1.0), J, (4, 3))
    close(first, J[1:, :4].sum(0), 1e-12)
    close(second, next(published([J[:, 4:]], 1.0, 0.9)), 1e-12)


@pytest.mark.parametrize(("reference", "norm"), [("mean", 3), ("max", 4), ("min", 2)])
def test_who_misses_a_tensor_does_not_count_there(reference, norm):
    J = tensor([[0, 0, 1], [2, 0, 1], [0, 4, 1]])
    first, second = split_step(isonomy.build("metabalance", tasks=3, relax=1.0, reference=reference), J, (2, 1))
    close(first, [norm, norm], 1e-12)
    close(second, [3], 1e-12)


def test_a_missing_target_is_remembered():
    balancer = isonomy.build("metabalance", tasks=["a", "b", "c"], allow_missing=True, relax=1.0, groups="model")

    def step(**norms):
        theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        balancer({task: n * theta["abc".index(task)] for task, n in norms.items()}, shared=[theta]).backward()
        return theta.grad

    # Nothing is known of the target's norm, then it is 6: b, whose norm never changes, gets just that.
    close(step(b=2.0, c=1.0), [0, 2, 1], 1e-12)
    close(step(a=6.0, b=2.0, c=3.0), [6, 6, 3 * 6 / (0.39 / 0.19)], 1e-12)
    close(step(b=2.0), [0, 6, 0], 1e-12)
    close(stage_of(balancer).averages, [[0.6, 0.542, 0.39]], 1e-12)


@pytest.mark.parametrize("groups", ["model", "tensor"])
def test_a_task_that_comes_late_is_not_enlarged_for_it(groups):
    balancer = isonomy.build("metabalance", tasks=["a", "b"], allow_missing=True, groups=groups)
    for step in range(30):
        theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        losses = {"a": 2 * theta[0]} | ({"b": 2 * theta[1]} if step == 29 else {})
        balancer(losses, shared=[theta]).backward()
    close(theta.grad, [2, 2], 1e-12)


def test_a_task_that_falls_silent_at_a_tensor():
    # Its average decays to 0 and must not spoil the others, nor itself when it comes back.
    balancer = isonomy.build("metabalance", tasks=3, beta=0.5)
    J = random_jacobian(3, 7, 0)
    silent = J.clone()
    silent[1, :4] = 0
    split_step(balancer, J, (4, 3))
    for _ in range(1100):
        first, _ = split_step(balancer, silent, (4, 3))
    assert stage_of(balancer).averages[0, 1] == 0
    n = J[:, :4].norm(dim=1)
    close(first, J[0, :4] + (0.7 * n[0] / n[2] + 0.3) * J[2, :4], 1e-9)
    back, _ = split_step(balancer, J, (4, 3))
    close(back, first + (0.7 * n[0] / (0.5 * n[1]) + 0.3) * J[1, :4], 1e-9)


def test_more_tensors_than_before():
    balancer = isonomy.build("metabalance", tasks=2)
    split_step(balancer, random_jacobian(2, 4, 0), (3, 1))
    before = stage_of(balancer).averages.clone()
    with pytest.raises(isonomy.IsonomyError, match="3 shared tensors now and there were 2 before"):
        split_step(balancer, random_jacobian(2, 4, 0), (2, 1, 1))
    assert torch.equal(stage_of(balancer).averages, before)


def test_levels():
    assert isonomy.build("metabalance", tasks=2).levels == ("parameters",)
    assert isonomy.build("metabalance", tasks=2, groups="model").levels == ("parameters", "features")


def test_heads_get_their_own_gradients():
    m = M()
    m.step(isonomy.build("metabalance", tasks=3))
    close(m.theta.grad, tensor([2, 0]) + 1.7 * tensor([0, -1]) + (0.7 / 2**0.5 + 0.3) * tensor([2, 2]), 1e-12)
    close(m.heads, [2, -2, 6])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"reference": "median"}, "reference of metabalance"),
        ({"reference": 2}, "reference=2 is no position among 2 tasks"),
        ({"reference": -1}, "reference=-1"),
        ({"relax": 1.1}, "relax=1.1"),
        ({"beta": 1.0}, "beta=1.0"),
        ({"strategy": "C"}, "strategy of metabalance"),
        ({"groups": "layer"}, "groups of metabalance"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        isonomy.build("metabalance", tasks=2, **options)
