import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import FAMO
from tests.fixtures import M, close, linear, set_up, tensor

LOSSES = [2, 0.5, 2]
AFTER = [1.5, 0.5, 1.9]


def famo(tasks=3, **options):
    balancer = isonomy.build("famo", tasks=tasks, **options)
    return balancer, next(balancer.parameters())


def step(balancer, values):
    theta, _, losses = linear(torch.eye(len(values)), values)
    balancer(losses, shared=[theta]).backward()
    return balancer.report.loss_weights


def test_known_weights_and_logits():
    balancer, xi = famo()
    close(step(balancer, LOSSES), [1 / 6, 2 / 3, 1 / 6])
    balancer.step_end(tensor(AFTER))
    close(xi, [-0.025, 0.025, 0.025])
    close(xi.softmax(0), [0.322316, 0.338842, 0.338842])
    close(step(balancer, AFTER), [0.200652, 0.632818, 0.166530])
    balancer.step_end(tensor([1.4, 0.45, 1.7]))
    close(xi, [-0.038849, 0.040051, 0.036565])


def test_known_values_and_gradient():
    stage = set_up(FAMO())
    close(stage(tensor(LOSSES), torch.arange(3)).sum(), 0.231049)
    stage.update(tensor(LOSSES), torch.arange(3))
    (gradient,) = stage.step_end(tensor(AFTER), torch.arange(3))
    close(gradient, [0.058230, -0.037664, -0.020566])
    stage.logits.data = tensor([-0.025, 0.025, 0.025])
    close(stage(tensor(AFTER), torch.arange(3)).sum(), 0.105806)


def test_gradients_on_a_model():
    m = M()
    m.step(famo()[0])
    w = tensor([1 / 6, 2 / 3, 1 / 6])
    close(m.theta.grad, w @ tensor([[2, 0], [0, -1], [2, 2]]))
    close(m.heads, w * tensor([2, -2, 6]))


positive = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3)


@given(positive, positive, st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_the_gradient_is_that_of_the_softmax(before, after, logits):
    stage = set_up(FAMO())
    stage.logits.data = tensor(logits)
    weights = torch.autograd.functional.jacobian(lambda x: stage(x, torch.arange(3)).sum(), tensor(before))
    close(weights.sum(), 1, 1e-9)
    assert (weights > 0).all()
    stage.update(tensor(before), torch.arange(3))
    (gradient,) = stage.step_end(tensor(after), torch.arange(3))
    improved = (tensor(before) + 1e-8).log() - (tensor(after) + 1e-8).log()
    J = torch.autograd.functional.jacobian(lambda x: x.softmax(0), tensor(logits))
    close(gradient, J.T @ improved, 1e-12)
    close(gradient.sum(), 0, 1e-12)
    # Who improved most of all loses weight.
    assert gradient[improved.argmax()] >= -1e-12


@given(positive, st.floats(0.1, 0.99))
def test_equal_rates_teach_nothing(losses, factor):
    stage = set_up(FAMO())
    stage.update(tensor(losses), torch.arange(3))
    close(stage.step_end(factor * tensor(losses), torch.arange(3))[0], [0, 0, 0], 1e-4)


def test_rates_of_improvement_become_equal():
    # A model whose log-losses fall in proportion to their weights, the third one half as readily; weight decay would
    # pull the weights a little towards uniform ones.
    balancer, _ = famo(own_weight_decay=0.0)
    speeds = tensor([1, 1, 0.5])
    for _ in range(300):
        w = step(balancer, [1, 1, 1])
        fall = 0.1 * speeds * w
        balancer.step_end((-fall).exp())
    close(fall / fall.mean(), [1, 1, 1], 0.02)
    close(w, [0.25, 0.25, 0.5], 0.02)


def test_only_the_losses_of_a_step_count_and_once():
    balancer, xi = famo()
    balancer.step_end(tensor(AFTER))
    close(xi, [0, 0, 0], 0)
    step(balancer, LOSSES)
    balancer.step_end(tensor(AFTER))
    learned = xi.clone()
    balancer.step_end(tensor(AFTER))
    close(xi, learned, 0)


def test_without_step_end_weights_stay_uniform_in_the_logarithm():
    balancer, _ = famo()
    for _ in range(3):
        close(step(balancer, LOSSES), [1 / 6, 2 / 3, 1 / 6])


def test_tasks_that_are_missing_learn_nothing():
    balancer, xi = famo(["a", "b", "c"], allow_missing=True)
    theta, _, losses = linear(torch.eye(3), LOSSES)
    balancer({"a": losses[0], "c": losses[2]}, shared=[theta]).backward()
    close(balancer.report.loss_weights[[0, 2]].sum(), 1)
    balancer.step_end({"a": tensor(1.0), "b": tensor(0.1), "c": tensor(1.9)})
    close(xi, [-0.025, 0, 0.025])


def test_weight_decay_forgets():
    balancer, xi = famo(own_weight_decay=0.5)
    step(balancer, LOSSES)
    balancer.step_end(tensor(AFTER))
    for _ in range(200):
        step(balancer, LOSSES)
        balancer.step_end(tensor(LOSSES))
    close(xi, [0, 0, 0], 1e-3)


def test_negative_losses_after_the_step():
    balancer, xi = famo()
    step(balancer, LOSSES)
    with pytest.raises(isonomy.IsonomyError, match=r"famo: the loss of task number 1 \(from 0\) after the step is -1"):
        balancer.step_end(tensor([1, -1, 1]))
    close(xi, [0, 0, 0], 0)
    balancer.step_end(tensor(AFTER))
    close(xi, [-0.025, 0.025, 0.025])


def test_one_task_is_plain_training():
    balancer, _ = famo(1)
    for value in (3.0, 0.1):
        close(step(balancer, [value]), [1], 1e-9)
        balancer.step_end(tensor([value / 2]))
