import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import GLS
from tests.fixtures import M, close, set_up, tensor, value_of

S = 1.259921


def test_geometric_mean():
    total, w, _ = value_of(set_up(GLS()), [2, 0.5, 2])
    close(total, S)
    close(w, [0.209987, 0.839947, 0.209987])


def test_gradients_on_a_model():
    m = M()
    balancer = isonomy.build("gls", tasks=3)
    m.step(balancer)
    close(m.theta.grad, [0.839947, -0.419974])
    close(m.heads, tensor([2, -2, 6]) * S / 3 / tensor([2, 0.5, 2]))
    close(balancer.report.loss_weights, [0.209987, 0.839947, 0.209987])


positive = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=6)


@given(positive, st.floats(1e-3, 1e3))
def test_weighted_losses_sum_to_the_mean_and_follow_a_common_scale(losses, k):
    total, w, _ = value_of(set_up(GLS(), len(losses)), losses)
    assert float(w @ tensor(losses)) == pytest.approx(float(total), rel=1e-12)
    close(w * tensor(losses) / total, [1 / len(losses)] * len(losses), 1e-12)
    scaled, same, _ = value_of(set_up(GLS(), len(losses)), k * tensor(losses))
    assert float(scaled) == pytest.approx(k * float(total), rel=1e-9)
    torch.testing.assert_close(same, w, rtol=1e-9, atol=0)


def test_many_losses_do_not_overflow():
    for value in (1e-30, 1e30):
        total, w, _ = value_of(set_up(GLS(), 50), [value] * 50)
        assert float(total) == pytest.approx(value, rel=1e-9)
        close(w, [1 / 50] * 50, 1e-9)


def test_one_task_is_plain_training():
    total, w, _ = value_of(set_up(GLS(), 1), [3.0])
    close(torch.stack([total, w[0]]), [3, 1], 1e-12)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_losses_have_to_be_positive(scale):
    m = M(scales=(1, scale, 1))
    with pytest.raises(isonomy.IsonomyError, match="'1'"):
        m.step(isonomy.build("gls", tasks=3))
