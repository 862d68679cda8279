import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import IMTLL, Log
from tests.fixtures import M, close, set_up, tensor, value_of

LOSSES = [2, 0.5, 2]


def with_s(s):
    stage = set_up(IMTLL(), len(s))
    stage.log_scales.data = tensor(s)
    return stage


@pytest.mark.parametrize(
    ("s", "value", "weights", "own"),
    [
        ([0, 0, 0], 4.5, [1, 1, 1], [1, -0.5, 1]),
        ([-0.1, 0.05, -0.1], 4.294985, [0.904837, 1.051271, 0.904837], [0.809675, -0.474364, 0.809675]),
        (-tensor(LOSSES).log(), 3.693147, [0.5, 2, 0.5], [0, 0, 0]),
    ],
)
def test_scaled_losses(s, value, weights, own):
    S, w, (gradient,) = value_of(with_s(s), LOSSES)
    close(S, value)
    close(w, weights)
    close(gradient, own)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5))
def test_at_the_optimum_the_gradient_is_that_of_the_log_loss(losses):
    S, w, (own,) = value_of(with_s(-tensor(losses).log()), losses)
    log, expected, _ = value_of(Log(eps=0), losses)
    torch.testing.assert_close(w, expected, rtol=1e-12, atol=0)
    close(S - len(losses), log, 1e-9)
    close(own, torch.zeros(len(losses)), 1e-9)


def test_a_plain_gradient_step_of_the_users_optimiser():
    balancer = isonomy.build("imtl_l", tasks=3, own_optimizer=False)
    (s,) = balancer.parameters()
    m = M()
    loss = m.step(balancer)
    close(loss, 4.5)
    close(s.grad, [1, -0.5, 1])
    torch.optim.SGD([s], lr=0.1).step()
    close(s, [-0.1, 0.05, -0.1])
    m = M()
    m.step(balancer)
    w = tensor([0.904837, 1.051271, 0.904837])
    close(balancer.report.loss_weights, w)
    close(m.theta.grad, w @ tensor([[2, 0], [0, -1], [2, 2]]))
    close(m.heads, w * tensor([2, -2, 6]))


def test_own_optimiser_is_adam_at_the_given_rate():
    balancer = isonomy.build("imtl_l", tasks=3, own_lr=0.1)
    (s,) = balancer.parameters()
    M().step(balancer)
    close(s, [-0.1, 0.1, -0.1])
    for _ in range(500):
        M().step(balancer)
    close(s, -tensor(LOSSES).log(), 1e-3)
