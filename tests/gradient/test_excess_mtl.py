import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.gradient import ExcessMTL
from tests.fixtures import B, E, M, close, linear, random_jacobian, tensor


def by_hand(steps, beta, warmup=1, total=None):
    """The weights of every step from squares that are kept as they are."""
    tasks = len(steps[0])
    total = total or tasks
    w, squares = torch.full((tasks,), total / tasks, dtype=torch.float64), torch.zeros_like(steps[0])
    seen, path = [], []
    for J in steps:
        squares = squares + J**2
        seen.append((J**2 / (squares + 1e-7).sqrt()).sum(1))
        if len(seen) > warmup:
            w = w * torch.exp(beta * seen[-1] / torch.stack(seen[:warmup]).mean(0))
            w = total * w / w.sum()
        path.append(w)
    return path


def test_known_values():
    balancer = isonomy.build("excess_mtl", 3)
    stage = balancer.stages[0]
    first, second = M(), M(targets=(0.0, 3.0, 2.0))
    first.step(balancer)
    close(stage.sums, [2, 1, 4])
    close(balancer.report.weights, [1, 1, 1])
    close(first.theta.grad, [4, 1])
    second.step(balancer)
    close(stage.roots**2, [[5, 0], [0, 2], [5, 5]])
    close(stage._excess / stage.sums, [0.223607, 0.707107, 0.223607])
    close(balancer.report.weights, [0.998387, 1.003226, 0.998387])
    close(second.theta.grad, [1.996774, -0.004839])
    close(second.heads, [0.998387, -2.006452, 2.995161])


@given(
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([0, 1, 3]),
    st.sampled_from(["tasks", "one"]),
)
def test_steps_by_hand(seed, tasks, count, warmup, total):
    balancer = isonomy.build("excess_mtl", tasks, beta=0.2, warmup_steps=warmup, total=total)
    steps = [random_jacobian(tasks, 4, seed + k, spread=1.0) for k in range(count)]
    expected = by_hand(steps, 0.2, max(warmup, 1), 1 if total == "one" else tasks)
    for J, w in zip(steps, expected, strict=True):
        close(balancer.aggregate(J), w @ J, 1e-9)


def test_the_same_gradients_again_leave_the_weights():
    balancer = isonomy.build("excess_mtl", 3)
    J = random_jacobian(3, 5, 0)
    balancer.aggregate(J)
    close(balancer.aggregate(J), J.sum(0), 1e-7)
    close(balancer.stages[0]._excess / balancer.stages[0].sums, [2**-0.5] * 3, 1e-6)


def test_a_task_that_stays_far_from_its_optimum_gains_and_one_that_converges_loses():
    balancer = isonomy.build("excess_mtl", 2, beta=0.1)
    J = random_jacobian(2, 5, 1)
    for k in range(10):
        balancer.aggregate(J * tensor([[1.0], [0.5**k]]))
    w = balancer.stages[0].shares
    assert w[0] > 0.55
    assert float(w.sum()) == pytest.approx(1)


def test_beta_0_is_the_sum():
    balancer = isonomy.build("excess_mtl", 2, beta=0.0)
    J = random_jacobian(2, 5, 2)
    for _ in range(5):
        close(balancer.aggregate(J), J.sum(0), 1e-12)


def test_ratios_count_up_to_50():
    balancer = isonomy.build("excess_mtl", 2, beta=0.1)
    for scale in (1e-9, 1e9):
        balancer.aggregate(tensor([[scale, 0], [0, 1.0]]))
    # The second task's ratio is 1/√2.
    odds = balancer.stages[0].shares[0] / balancer.stages[0].shares[1]
    assert float(odds) == pytest.approx(math.exp(0.1 * (50 - 0.5**0.5)), rel=1e-6)


def test_no_share_dies():
    balancer = isonomy.build("excess_mtl", 2, beta=1.0)
    balancer.aggregate(tensor([[1e-9, 0], [0, 1.0]]))
    for _ in range(3):
        w = balancer.aggregate(tensor([[1e9, 0], [0, 1.0]])) / tensor([1e9, 1.0])
        assert w.isfinite().all()
    assert float(w[1]) == pytest.approx(1e-6, rel=1e-3)
    assert float(w.sum()) == pytest.approx(2)
    # From there it comes back.
    for _ in range(40):
        balancer.aggregate(tensor([[1e-9, 0], [0, 1.0]]))
    assert balancer.stages[0].shares[1] > 1e-5


def test_float32_gradients_whose_squares_are_not_finite():
    balancer = isonomy.build("excess_mtl", 2)
    J = tensor([[3e25, 4e25], [1e-25, 0]]).float()
    for _ in range(3):
        assert balancer.aggregate(J).isfinite().all()
    close(balancer.stages[0].roots[0] / (3**0.5 * 1e25), [3, 4], 1e-5)
    assert balancer.stages[0].roots[1, 0] > 0


def test_warm_up_takes_the_mean_and_leaves_the_weights():
    balancer = isonomy.build("excess_mtl", 2, warmup_steps=2, beta=1.0)
    steps = [random_jacobian(2, 3, seed) for seed in range(3)]
    for J in steps[:2]:
        close(balancer.aggregate(J), J.sum(0), 1e-12)
    squares = steps[0].abs(), steps[1] ** 2 / (steps[0] ** 2 + steps[1] ** 2 + 1e-7).sqrt()
    close(balancer.stages[0].sums, sum(part.sum(1) for part in squares), 1e-6)
    assert float((balancer.aggregate(steps[2]) - steps[2].sum(0)).abs().max()) > 1e-2


@pytest.mark.parametrize(("total", "expected"), [("tasks", 3), ("one", 1)])
def test_total(total, expected):
    balancer = isonomy.build("excess_mtl", 3, total=total, beta=1.0)
    for seed in range(4):
        theta, heads, losses = linear(random_jacobian(3, 4, seed))
        balancer(losses, shared=[theta]).backward()
        assert float(balancer.report.weights.sum()) == pytest.approx(expected)
        close(torch.stack([head.grad for head in heads]), balancer.report.weights, 1e-12)


def test_absent_tasks_keep_their_share_and_their_history():
    balancer = isonomy.build("excess_mtl", 3, beta=1.0, allow_missing=True)
    stage = balancer.stages[0]
    for seed in range(3):
        theta, _, losses = linear(E if seed == 0 else random_jacobian(3, 3, seed))
        balancer({"0": losses[0], "2": losses[2]}, shared=[theta]).backward()
    assert float(stage.shares[1]) == pytest.approx(1 / 3)
    assert stage.shares[0] != stage.shares[2]
    assert float(stage.shares.sum()) == pytest.approx(1)
    assert not stage.roots[1].any()
    assert stage.steps.tolist() == [3, 0, 3]
    theta, _, losses = linear(E)
    balancer(losses, shared=[theta]).backward()
    close(stage.roots[1], tensor(E)[1].abs(), 1e-12)
    close(stage.sums[1], tensor(E)[1].abs().sum(), 1e-6)
    assert float(stage.shares.sum()) == pytest.approx(1)


def test_one_task_has_the_whole_weight():
    for total in ("tasks", "one"):
        balancer = isonomy.build("excess_mtl", 1, total=total)
        for _ in range(2):
            close(balancer.aggregate(tensor(B)[:1]), tensor(B)[0], 1e-12)


def test_levels_and_heads():
    balancer = isonomy.build("excess_mtl", 2)
    assert balancer.levels == ("parameters",)
    assert balancer.heads == "weighted"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"beta": -1.0}, "beta=-1.0"),
        ({"beta": math.nan}, "beta=nan"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"total": "task"}, "did you mean 'tasks'"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        ExcessMTL(**options)
