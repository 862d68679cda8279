import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import STCH
from tests.fixtures import M, close, set_up, tensor, value_of

LOSSES = [2, 0.5, 2]


def with_nadir(nadir, **options):
    """The stage after epochs of one batch each, the last of which is the nadir."""
    stage = set_up(STCH(**options), len(nadir))
    for losses in [[9] * len(nadir)] * stage.nadir_epoch + [nadir]:
        stage.update(tensor(losses), torch.arange(len(nadir)))
        stage.epoch_end(None, None)
    return stage


@pytest.mark.parametrize(
    ("mu", "weights", "theta"),
    [
        (1.0, [1, 1, 0.25], [2.5, -0.5]),
        (0.5, [1.333333, 0.333333, 0.083333], [2.833333, -0.166667]),
    ],
)
def test_known_weights(mu, weights, theta):
    balancer = isonomy.build("stch", tasks=3, mu=mu)
    for scales in [(1, 1, 1)] * 4 + [(0.5, 2, 2)]:
        M(scales=scales).step(balancer)
        balancer.epoch_end()
    m = M()
    m.step(balancer)
    close(balancer.report.loss_weights, weights)
    close(m.theta.grad, theta)
    close(m.heads, tensor(weights) * tensor([2, -2, 6]))


def test_the_true_value_is_a_smooth_maximum():
    y = tensor([2, 0.5, 0.5])
    for mu in (1.0, 0.5, 1e-3):
        S = value_of(with_nadir([1, 1, 4], mu=mu), LOSSES)[0]
        close(S, 3 * mu * torch.logsumexp(y.log() / mu, 0), 1e-12)
    close(S, 3 * math.log(2), 1e-6)


def test_before_the_nadir_it_is_the_log_loss():
    stage = set_up(STCH(mu=0.1))
    for epoch in range(5):
        close(value_of(stage, LOSSES)[1], [0.5, 2, 0.5], 1e-12)
        stage.update(tensor([1, 1, 4]), torch.arange(3))
        stage.epoch_end(None, None)
        assert bool(stage.reference.values.isnan().all()) == (epoch < 4)
    assert (value_of(stage, LOSSES)[1] - tensor([0.5, 2, 0.5])).abs().max() > 0.1


@pytest.mark.parametrize(
    ("mu", "value", "weights"),
    [(1.0, 1.624687, [0.127884, 0.077566, 0.127884]), (0.01, 0.673598, [0.166667, 0, 0.166667])],
)
def test_known_values_of_the_papers_form(mu, value, weights):
    S, w, _ = value_of(set_up(STCH(form="paper", mu=mu)), LOSSES)
    close(S, value)
    close(w, weights)


positive = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3)


@given(positive, positive, st.sampled_from([0.1, 0.5, 1.0, 2.0]))
def test_official_weights_and_scales(nadir, losses, mu):
    nadir, losses = tensor(nadir), tensor(losses)
    w = value_of(with_nadir(nadir, mu=mu), losses)[1]
    p = ((losses / nadir).log() / mu).softmax(0)
    torch.testing.assert_close(w * losses, 3 * p, rtol=1e-9, atol=1e-15)
    scaled = value_of(with_nadir(tensor([10, 1, 1]) * nadir, mu=mu), tensor([10, 1, 1]) * losses)[1]
    torch.testing.assert_close(scaled * tensor([10, 1, 1]), w, rtol=1e-9, atol=1e-15)


@given(positive, positive, st.lists(st.floats(-10, 10), min_size=3, max_size=3), st.sampled_from([0.01, 0.1, 1.0]))
def test_paper_form_bounds_the_maximum(preference, losses, ideal, mu):
    stage = set_up(STCH(form="paper", mu=mu, preference=preference, ideal=ideal))
    S, w, _ = value_of(stage, losses)
    share = tensor(preference) / sum(preference)
    y = share * (tensor(losses) - tensor(ideal))
    assert y.max() - 1e-9 <= S <= y.max() + mu * math.log(3) + 1e-9 * y.abs().max()
    close(w, share * (y / mu).softmax(0), 1e-9)


def test_preferences_are_shared_among_the_tasks_that_are_there():
    stage = set_up(STCH(form="paper", preference=[1, 2, 3]))
    losses = tensor([2, 2]).requires_grad_()
    (w,) = torch.autograd.grad(stage(losses, torch.tensor([0, 2])).sum(), losses)
    close(w, tensor([0.25, 0.75]) * (tensor([0.5, 1.5])).softmax(0), 1e-12)


def test_the_papers_form_takes_any_loss_and_needs_no_epochs():
    assert isonomy.build("stch", tasks=2, form="paper").needs == ()
    assert isonomy.build("stch", tasks=2).needs == ("epoch_end",)
    M(scales=(-1, 1, 1)).step(isonomy.build("stch", tasks=3, form="paper"))
    with pytest.raises(isonomy.IsonomyError, match="'0'"):
        M(scales=(-1, 1, 1)).step(isonomy.build("stch", tasks=3))


def test_the_papers_form_ignores_epochs():
    stage = set_up(STCH(form="paper"))
    before = value_of(stage, LOSSES)[1]
    for _ in range(6):
        stage.update(tensor(LOSSES), torch.arange(3))
        stage.epoch_end(None, None)
    close(value_of(stage, LOSSES)[1], before, 0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mu": 0.0}, "mu=0.0"),
        ({"mu": float("inf")}, "mu=inf"),
        ({"form": "papr"}, "did you mean 'paper'"),
        ({"nadir_epoch": -1}, "nadir_epoch=-1"),
        ({"preference": [1, 1, 1]}, "preference belongs to the paper's form"),
        ({"ideal": [1, 1, 1]}, "ideal belongs to the paper's form"),
        ({"form": "paper", "preference": [1, 0, 1]}, "must hold positive"),
        ({"form": "paper", "ideal": [1, float("nan"), 1]}, "must hold finite"),
        ({"form": "paper", "preference": [1, 1]}, "preference has 2 entries for 3"),
        ({"form": "paper", "ideal": [1, 1]}, "ideal has 2 entries for 3"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        isonomy.build("stch", tasks=3, **options)
