import pytest

import isonomy
from isonomy.loss import Fixed
from tests.fixtures import M, close, set_up, value_of


def test_constant_weights():
    m = M()
    balancer = isonomy.build("fixed", tasks=3, weights=[1, 2, 0.5])
    m.step(balancer)
    close(m.theta.grad, [3, -1])
    close(m.heads, [2, -4, 3])
    total, weights, _ = value_of(set_up(Fixed([1, 2, 0.5])), [2, 0.5, 2])
    close(total, 4)
    close(weights, [1, 2, 0.5])


def test_without_weights_every_task_has_one():
    m = M()
    balancer = isonomy.build("fixed", tasks=3)
    m.step(balancer)
    close(balancer.report.loss_weights, [1, 1, 1], 0)
    close(m.theta.grad, [4, 1])


def test_a_weight_of_zero_freezes_the_head():
    m = M()
    m.step(isonomy.build("fixed", tasks=3, weights=[1, 0, 1]))
    assert m.psi[1].grad == 0


def test_weights_of_one_leave_a_gradient_balancer_as_it_is():
    both, alone = M(), M()
    both.step(isonomy.build("fixed+imtl_g", tasks=3, weights=[1, 1, 1]))
    alone.step(isonomy.build("imtl_g", tasks=3))
    close(both.theta.grad, alone.theta.grad, 1e-15)


def test_weights_scale_the_gradients_that_a_gradient_balancer_sees():
    m = M()
    balancer = isonomy.build("fixed+max_norm", tasks=3, weights=[1, 4, 1])
    m.step(balancer)
    close(balancer.report.norms, [2, 4, 8**0.5])
    close(m.theta.grad, [4 + 8**0.5, 8**0.5 - 4], 1e-6)
    close(m.heads, [2, -8, 6])


@pytest.mark.parametrize("weights", [[1, -1, 1], [1, float("nan"), 1], [1, float("inf"), 1], [1, 2]])
def test_unusable_weights(weights):
    with pytest.raises(isonomy.IsonomyError, match="weights"):
        isonomy.build("fixed", tasks=3, weights=weights)


def test_a_mapping_is_refused_and_not_taken_for_its_keys():
    with pytest.raises(isonomy.IsonomyError, match="weights is a mapping: pass a list"):
        Fixed({0: 3.0, 1: 5.0})
