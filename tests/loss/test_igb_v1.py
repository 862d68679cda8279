import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import IGBv1
from tests.fixtures import M, close, set_up, tensor, value_of

LOSSES = [2, 0.5, 2]


def with_base(base, **options):
    """The stage after epochs of one batch each, the last of which is the base."""
    stage = set_up(IGBv1(**options), len(base))
    for losses in [[9] * len(base)] * stage.base_epoch + [base]:
        stage.update(tensor(losses), torch.arange(len(base)))
        stage.epoch_end(None, None)
    return stage


def test_known_weights():
    S, w, _ = value_of(with_base([4, 1, 2]), LOSSES)
    close(S, 0.939622)
    close(w, [0.411103, 1.644412, 0.677794])
    close(w * tensor(LOSSES), [0.822206, 0.822206, 1.355588])


def test_before_the_base_it_is_the_log_loss():
    stage = set_up(IGBv1())
    for _ in range(2):
        S, w, _ = value_of(stage, LOSSES)
        close(S, 0.693147)
        close(w, [0.5, 2, 0.5])
        stage.update(tensor([4, 1, 2]), torch.arange(3))
        stage.epoch_end(None, None)
    close(value_of(stage, LOSSES)[0], 0.939622)


def test_epochs_on_a_model():
    balancer = isonomy.build("igb_v1", tasks=3)
    for factor in (5, 1.5, 0.5, 1):
        m = M(scales=(2 * factor, 2 * factor, factor))
        m.step(balancer)
        if factor != 1.5:
            balancer.epoch_end()
    m = M()
    m.step(balancer)
    # The second epoch had batches of 1.5 and 0.5 times (4, 1, 2).
    w = tensor([0.411103, 1.644412, 0.677794])
    close(m.theta.grad, w @ tensor([[2, 0], [0, -1], [2, 2]]))
    close(m.heads, w * tensor([2, -2, 6]))


positive = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3)


@given(positive, positive, positive)
def test_weights_sum_to_the_number_of_tasks_and_scales_cancel(base, losses, scales):
    base, losses, scales = tensor(base), tensor(losses), tensor(scales)
    w = value_of(with_base(base), losses)[1]
    close((w * (losses + 1e-8)).sum(), 3, 1e-9)
    scaled = value_of(with_base(scales * base), scales * losses)[1]
    # Up to 1e-8, which is added to losses of 1e-6 or more.
    torch.testing.assert_close(scaled * scales, w, rtol=0.05, atol=0)


@given(positive, positive)
def test_the_task_with_more_left_to_improve_gets_more(base, losses):
    base, losses = tensor(base), tensor(losses)
    w = value_of(with_base(base), losses)[1] * (losses + 1e-8)
    order = (losses / base).argsort()
    assert (w[order].diff() >= -1e-12).all()


def test_a_loss_of_zero_is_finite_with_and_without_a_base():
    for stage in (set_up(IGBv1()), with_base([1, 1, 1])):
        S, w, _ = value_of(stage, [0, 1, 1])
        assert S.isfinite()
        assert w.isfinite().all()


def test_base_epoch_and_its_errors():
    close(value_of(with_base([4, 1, 2], base_epoch=0), LOSSES)[0], 0.939622)
    with pytest.raises(isonomy.IsonomyError, match="base_epoch=-1"):
        isonomy.build("igb_v1", tasks=2, base_epoch=-1)
    with pytest.raises(isonomy.IsonomyError, match="task number 1"):
        with_base([4, 0, 2])
