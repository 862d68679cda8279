import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import DTP
from tests.fixtures import M, close, set_up, tensor, value_of


def weights(*epochs, **options):
    stage = set_up(DTP(**options), len(epochs[0]))
    for metrics in epochs:
        stage.epoch_end(tensor(metrics), None)
    return value_of(stage, [1.0] * len(epochs[0]))[1]


@pytest.mark.parametrize(
    ("kappa", "gamma", "weight"),
    [(0.5, 0, 0.693147), (0.5, 1, 0.346574), (0.5, 2, 0.173287), (0.2, 1, 1.287550), (0.9, 1, 0.010536)],
)
def test_known_focal_weights(kappa, gamma, weight):
    close(weights([kappa], gamma=gamma), [weight])


def test_running_mean():
    stage = set_up(DTP())
    stage.epoch_end(tensor([0.4, 0.4, torch.nan]), None)
    stage.epoch_end(tensor([0.6, torch.nan, 0.8]), None)
    close(stage.indicators, [0.5, 0.4, 0.8])
    stage = set_up(DTP(alpha=1.0))
    stage.epoch_end(tensor([0.4, 0.4, 0.4]), None)
    stage.epoch_end(tensor([0.6, 0.1, 0.8]), None)
    close(stage.indicators, [0.6, 0.1, 0.8])


def test_epochs_on_a_model():
    balancer = isonomy.build("dtp", tasks=["a", "b", "c"])
    m = M()
    m.step(balancer)
    close(m.heads, [2, -2, 6], 0)
    balancer.epoch_end({"a": 0.4, "b": 0.2})
    balancer.epoch_end({"a": 0.6, "b": 0.2})
    m = M()
    m.step(balancer)
    w = tensor([0.346574, 1.287550, 1])
    close(balancer.report.loss_weights, w)
    close(m.theta.grad, w @ tensor([[2, 0], [0, -1], [2, 2]]))
    close(m.heads, w * tensor([2, -2, 6]))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 5))
def test_weights_fall_with_the_indicator(metrics, gamma):
    w = weights(metrics, gamma=gamma)
    assert (w > 0).all()
    assert w.isfinite().all()
    kappa, order = tensor(metrics).clamp(0.01, 0.99).sort()
    for before, after, gap in zip(w[order], w[order][1:], kappa.diff(), strict=False):
        assert after < before if gap > 1e-9 else after <= before + 1e-9


def test_the_ends_of_the_scale_have_weights_too():
    close(weights([0, 1]), weights([0.01, 0.99]), 0)


def test_the_balancer_wants_metrics():
    with pytest.raises(isonomy.IsonomyError, match="DTP"):
        isonomy.build("dtp", tasks=2).epoch_end()


@pytest.mark.parametrize("value", [-0.1, 1.1, float("inf")])
def test_metrics_out_of_range(value):
    balancer = isonomy.build("dtp", tasks=["a", "b"])
    balancer.epoch_end({"a": 0.5, "b": 0.5})
    with pytest.raises(isonomy.IsonomyError, match=r"dtp: the metric of task number 1 \(from 0\)"):
        balancer.epoch_end({"a": 0.7, "b": value})
    close(balancer.stages[0].indicators, [0.5, 0.5], 0)


@pytest.mark.parametrize(
    ("option", "value"), [("alpha", 0.0), ("alpha", 1.5), ("gamma", -1.0), ("gamma", float("inf"))]
)
def test_unusable_options(option, value):
    with pytest.raises(isonomy.IsonomyError, match=f"dtp: {option}="):
        isonomy.build("dtp", tasks=2, **{option: value})


def test_direct_call_without_metrics_changes_nothing():
    stage = set_up(DTP())
    stage.epoch_end(tensor([0.4, 0.4, 0.4]), None)
    stage.epoch_end(None, 0.1)
    close(stage.indicators, [0.4, 0.4, 0.4], 0)
    assert torch.equal(value_of(stage, [1, 1, 1])[1], weights([0.4, 0.4, 0.4]))
