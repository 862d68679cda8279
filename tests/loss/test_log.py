import pytest
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy import IsonomyError
from isonomy.loss import Log
from tests.fixtures import M, close, linear, set_up, value_of


def test_logarithms():
    S, w, _ = value_of(set_up(Log()), [2, 0.5, 2])
    close(S, 0.693147)
    close(w, [0.5, 2, 0.5])


@pytest.mark.parametrize("name", ["log", "log+fixed"])
def test_gradients_on_a_model(name):
    m = M()
    m.step(isonomy.build(name, tasks=3, **({"weights": [1, 1, 1]} if "fixed" in name else {})))
    close(m.theta.grad, [2, -1])
    close(m.heads, [1, -4, 3])


scales = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3)


@given(scales)
def test_scales_of_losses_change_no_gradient(k):
    m = M(scales=k)
    m.step(isonomy.build("log", tasks=3, eps=0.0))
    close(m.theta.grad, [2, -1], 1e-12)
    close(m.heads, [1, -4, 3], 1e-12)


def test_a_loss_of_zero_has_a_finite_weight_and_one_task_trains_its_logarithm():
    S, w, _ = value_of(set_up(Log()), [0.0])
    close(w, [1e8])
    assert S.isfinite()
    close(value_of(set_up(Log(), 1), [4.0])[1], [0.25])
    close(value_of(set_up(Log(eps=1.0), 1), [4.0])[1], [0.2])


def test_negative_losses_are_refused():
    with pytest.raises(isonomy.IsonomyError, match="'2'"):
        M(scales=(1, 1, -1)).step(isonomy.build("log", tasks=3))


@pytest.mark.parametrize("eps", [-1e-8, float("inf"), float("nan")])
def test_epsilon_is_no_negative_number(eps):
    with pytest.raises(IsonomyError, match="log: eps="):
        Log(eps=eps)


def test_without_epsilon_losses_have_to_be_positive():
    balancer = isonomy.build("log", tasks=3, eps=0)
    _, _, losses = linear([[1], [1], [1]], [2, 0.5, 2])
    balancer(losses)
    close(balancer.report.loss_weights, [0.5, 2, 0.5])
    _, _, losses = linear([[1], [1], [1]], [2, 0, 2])
    with pytest.raises(IsonomyError, match="task '1' is 0, and Log needs a positive loss"):
        balancer(losses)
