import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.gradient import MTAdam
from tests.fixtures import A, B, E, close, linear, random_jacobian, tensor


def trained(J, steps, lr=0.1):
    """θ after each step of plain SGD from 0 on the gradients, one J a step."""
    balancer = isonomy.build("mtadam", len(tensor(J)))
    theta, path = torch.zeros(len(tensor(J)[0]), dtype=torch.float64), []
    for scale in steps:
        theta = theta - lr * balancer.aggregate(scale * tensor(J))
        path.append(theta)
    return path


def by_hand(steps, betas=(0.9, 0.999, 0.9), eps=1e-8):
    """The paper's algorithm; a step is a list of tasks, a task a list of gradients, one a tensor."""
    tasks, tensors = len(steps[0]), len(steps[0][0])
    m = [[torch.zeros_like(g) for g in task] for task in steps[0]]
    v = [[torch.zeros_like(g) for g in task] for task in steps[0]]
    nu = [[1.0] * tensors for _ in range(tasks)]
    for k, gradients in enumerate(steps, start=1):
        updates = []
        for s in range(tensors):
            for t in range(tasks):
                norm = float(gradients[t][s].norm())
                nu[t][s] = norm if k == 1 else betas[2] * nu[t][s] + (1 - betas[2]) * norm
            anchor = next((nu[t][s] for t in range(tasks) if nu[t][s] > 1e-10), None)
            for t in range(tasks):
                g = gradients[t][s] * (anchor / nu[t][s] if nu[t][s] > 1e-10 else 1.0)
                m[t][s] = betas[0] * m[t][s] + (1 - betas[0]) * g
                v[t][s] = betas[1] * v[t][s] + (1 - betas[1]) * g * g
            deviations = [(v[t][s] / (1 - betas[1] ** k)).sqrt() + eps for t in range(tasks)]
            largest = torch.stack(deviations).amax(0)
            updates.append(sum(m[t][s] / (1 - betas[0] ** k) / largest for t in range(tasks)))
    return updates


@pytest.mark.parametrize(
    ("J", "path"),
    [
        (A, [(-0.170711, -0.1), (-0.341421, -0.2), (-0.506633, -0.296779)]),
        (B, [(-0.003136, -0.168825, -0.168825)]),
        (E, [(-0.070806, -0.007999, -0.1), (-0.141611, -0.015997, -0.2)]),
    ],
    ids=list("ABE"),
)
def test_known_paths(J, path):
    for theta, expected in zip(trained(J, [1, 1, 2]), path, strict=False):
        close(theta, expected)


def blocks(tasks, seed):
    """Gradients in a matrix, a vector and a number; the second tensor is out of the first task's reach."""
    J = random_jacobian(tasks, 10, seed, spread=3.0)
    J[0, 6:9] = 0
    return [[row[:6].reshape(2, 3), row[6:9], row[9]] for row in J]


def step(balancer, gradients, active=None):
    shared = [torch.zeros_like(g).requires_grad_() for g in gradients[0]]
    active = range(len(gradients)) if active is None else active
    losses = {str(t): 1 + sum((g * p).sum() for g, p in zip(gradients[t], shared, strict=True)) for t in active}
    balancer(losses, shared=shared).backward()
    return [p.grad for p in shared]


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4))
def test_steps_are_the_papers_tensor_by_tensor(seed, tasks, count):
    betas = (0.8, 0.95, 0.7)
    balancer = isonomy.build("mtadam", tasks, betas=betas, eps=1e-6)
    steps = [blocks(tasks, seed + k) for k in range(count)]
    for gradients in steps:
        found = step(balancer, gradients)
    for actual, expected in zip(found, by_hand(steps, betas, 1e-6), strict=True):
        close(actual, expected, 1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e-12])
def test_one_task_is_adam(scale):
    theta = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([theta], lr=0.01)
    balancer, own = isonomy.build("mtadam", 1), torch.zeros(4, dtype=torch.float64)
    for seed in range(10):
        J = scale * random_jacobian(1, 4, seed)
        theta.grad = J[0].clone()
        adam.step()
        own -= 0.01 * balancer.aggregate(J)
        close(own, theta, 1e-12)


@given(st.integers(0, 10_000), st.integers(-3, 3))
def test_scales_of_all_tasks_but_the_first_do_not_matter(seed, exponent):
    one, other = isonomy.build("mtadam", 3), isonomy.build("mtadam", 3)
    scales = tensor([[1], [10.0**exponent], [10.0**-exponent]])
    for k in range(4):
        J = random_jacobian(3, 5, seed + k)
        close(one.aggregate(J), other.aggregate(scales * J), 1e-6)


def test_the_first_task_sets_the_scale():
    J = random_jacobian(2, 5, 0) * 1e-7
    balancer, swapped = isonomy.build("mtadam", 2), isonomy.build("mtadam", 2)
    d, turned = balancer.aggregate(J * tensor([[1], [1e4]])), swapped.aggregate((J * tensor([[1], [1e4]])).flip(0))
    # At norms near ε the update is shorter.
    assert float((d - turned).abs().max()) > 0.01


def test_an_absent_task_keeps_its_moments():
    balancer, alone = isonomy.build("mtadam", 2, allow_missing=True), isonomy.build("mtadam", 1)
    for k in range(3):
        gradients = blocks(2, k)
        for found, expected in zip(step(balancer, gradients, [1]), step(alone, gradients[1:]), strict=True):
            close(found, expected, 1e-12)
    stage = balancer.stages[0]
    assert stage.steps.tolist() == [0, 3]
    assert not stage.first[0].any()
    assert not stage.second[0].any()
    # The first task starts where all tasks start, at its own first step.
    gradients = blocks(2, 7)
    step(balancer, gradients)
    norms = [float(g.norm()) for g in gradients[0]]
    close(stage.norms[0], norms, 1e-12)
    assert stage.steps.tolist() == [1, 4]


def test_update_of_a_step_that_raises_is_not_remembered():
    balancer = isonomy.build("mtadam", 2)
    balancer.aggregate(tensor(B))
    before = {name: value.clone() for name, value in balancer.stages[0].state_dict().items()}
    J = tensor(B)
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(isonomy.IsonomyError, match="not finite"):
        balancer([1 + J[0] @ theta, 1 + (theta * 0).sqrt().sum()], shared=[theta])
    assert all(torch.equal(before[name], value) for name, value in balancer.stages[0].state_dict().items())


def test_heads_get_their_own_gradients_and_the_aggregate_is_an_update():
    theta, heads, losses = linear(A, scales=[1.0, 3.0])
    isonomy.build("mtadam", 2)(losses, shared=[theta]).backward()
    close(torch.stack([head.grad for head in heads]), [1, 3])
    close(theta.grad, [1.70710678, 1.0])
    assert MTAdam.is_update
    assert isonomy.build("mtadam", 2).levels == ("parameters",)


def test_low_precision_keeps_moments_in_float32():
    balancer = isonomy.build("mtadam", 2)
    d = balancer.aggregate(tensor(A).bfloat16())
    assert d.dtype == torch.bfloat16
    assert balancer.stages[0].second.dtype == torch.float32
    close(d, [1.70710678, 1.0], 1e-2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"betas": (0.9, 0.999)}, "three numbers"),
        ({"betas": (0.9, 1.0, 0.9)}, "betas="),
        ({"betas": (0.9, 0.9, -0.1)}, "betas="),
        ({"eps": 0.0}, "eps=0.0"),
        ({"eps": float("nan")}, "eps=nan"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        MTAdam(**options)
