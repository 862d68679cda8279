import pytest
import torch

import isonomy
from isonomy.gradient import GradNorm
from tests.fixtures import A, M, close, tensor, weights

FIRST = [4, 1, 3]
ADAM = [0.983193, 1.033613, 0.983193]


def started(**options):
    """A balancer whose first losses were (4, 1, 3), and its own parameter."""
    balancer = isonomy.build("gradnorm", tasks=3, **options)
    (stage,) = balancer.stages
    stage.first.copy_(tensor(FIRST))
    return balancer, next(iter(balancer.parameters()))


def test_the_first_step_is_the_plain_sum():
    balancer, _ = started()
    m = M()
    m.step(balancer)
    close(balancer.report.weights, [1, 1, 1])
    close(m.theta.grad, [4, 1])
    close(m.heads, [2, -2, 6])


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_gradient_and_plain_step_of_the_weights(alpha):
    balancer, w = started(alpha=alpha, own_optimizer=False)
    M().step(balancer)
    close(w.grad, [2, -1, 2.828427])
    torch.optim.SGD([w], lr=0.025).step()
    m = M()
    m.step(balancer)
    close(balancer.report.weights, [0.981307, 1.058779, 0.959914])
    close(m.heads, tensor([0.981307, 1.058779, 0.959914]) * tensor([2, -2, 6]))


def test_step_of_the_own_adam():
    balancer, _ = started()
    M().step(balancer)
    m = M()
    m.step(balancer)
    close(balancer.report.weights, ADAM)
    close(m.theta.grad, tensor(ADAM) @ tensor([[2, 0], [0, -1], [2, 2]]))
    close(m.heads, tensor(ADAM) * tensor([2, -2, 6]))


@pytest.mark.parametrize(
    ("alpha", "first", "signs"),
    [
        # Norms (2, 1, 2.83), mean 1.94; rates (1, 1, 1): above, below, above.
        (1.5, [2, 0.5, 2], [1, -1, 1]),
        # The first task has lost nothing, the others half: rates (1.5, 0.75, 0.75), targets 1.94 r^α.
        (1.0, [2, 1, 4], [-1, -1, 1]),
        # The last has lagged behind twice its start: rates (0.6, 0.6, 1.8), target 3.5.
        (1.0, [3, 0.75, 1], [1, -1, -1]),
    ],
)
def test_lagging_tasks_get_longer_gradients(alpha, first, signs):
    balancer = isonomy.build("gradnorm", tasks=3, alpha=alpha, own_optimizer=False)
    balancer.stages[0].first.copy_(tensor(first))
    M().step(balancer)
    close(next(iter(balancer.parameters())).grad, tensor(signs) * tensor([2, 1, 8**0.5]))


def test_alpha_0_ends_with_equal_norms():
    balancer = isonomy.build("gradnorm", tasks=3, alpha=0.0, own_lr=2e-3)
    for _ in range(900):
        M().step(balancer)
    close(balancer.report.weights, [0.809256, 1.618513, 0.572231], 5e-3)
    close(balancer.report.weights.sum(), 3)


def test_the_first_batch_is_what_losses_are_compared_with():
    balancer = isonomy.build("gradnorm", tasks=3)
    M(scales=(2, 2, 1.5)).step(balancer)
    balancer.epoch_end()
    M().step(balancer)
    close(balancer.stages[0].first, FIRST, 1e-12)


def test_weights_stay_positive_and_sum_to_the_number_of_tasks():
    balancer = isonomy.build("gradnorm", tasks=3, own_lr=0.5)
    for _ in range(30):
        M().step(balancer)
        assert (balancer.report.weights > 0).all()
        close(balancer.report.weights.sum(), 3)


def test_a_negative_weight_is_lifted_before_it_is_used():
    balancer, w = started(own_optimizer=False)
    w.data = torch.tensor([-1.0, 1.0, 1.0])
    M().step(balancer)
    close(balancer.report.weights, [1.5e-6, 1.5, 1.5], 1e-9 * 1e3)
    assert (balancer.report.weights > 0).all()


def libmtl(**options):
    return isonomy.build(
        "gradnorm", tasks=3, simplex="softmax", baseline="epoch", heads="own", own_optimizer=False, **options
    )


def test_libmtl_variant():
    balancer = libmtl()
    assert balancer.needs == ("gramian", "epoch_end")
    (v,) = balancer.parameters()
    # The first epoch trains with equal weights and moves nothing; its mean losses are (4, 1, 3).
    for scales in ((1, 1, 1), (3, 3, 2)):
        m = M(scales=scales)
        m.step(balancer)
        close(balancer.report.weights, [1, 1, 1])
        assert v.grad is None
    balancer.epoch_end()
    close(balancer.stages[0].first, FIRST, 1e-12)
    m = M()
    m.step(balancer)
    close(v.grad, [0.723858, -2.276142, 1.552285])
    close(m.theta.grad, [4, 1])
    close(m.heads, [2, -2, 6])
    balancer.epoch_end()
    close(balancer.stages[0].first, FIRST, 1e-12)
    v.data = tensor([1, 2, 3]).log().float()
    m = M()
    m.step(balancer)
    close(balancer.report.weights, [0.5, 1, 1.5])
    close(m.heads, [2, -2, 6])


def test_gradients_alone_are_enough_without_a_restoring_force():
    close(weights("gradnorm", A, alpha=0.0), [1, 1])
    with pytest.raises(isonomy.IsonomyError, match="losses"):
        weights("gradnorm", A)


def test_gradients_alone_train_the_weights_too():
    balancer = isonomy.build("gradnorm", tasks=2, alpha=0.0)
    G = tensor([[1, 0], [0, 9]])
    balancer.weights(G)
    close(balancer.weights(G), [1.025, 0.975])


def test_one_task_stays_at_1():
    balancer = isonomy.build("gradnorm", tasks=1)
    for _ in range(3):
        m = M()
        balancer([m.losses[0]], shared=[m.theta]).backward()
        close(m.theta.grad, [2, 0])


def test_present_tasks_are_balanced_among_themselves():
    balancer = isonomy.build("gradnorm", tasks=["a", "b", "c"], allow_missing=True, own_optimizer=False)
    m = M()
    balancer({"a": m.losses[0], "c": m.losses[2]}, shared=[m.theta]).backward()
    (w,) = balancer.parameters()
    close(w.grad, [-2, 0, 8**0.5])
    assert balancer.stages[0].first.isnan().tolist() == [False, True, False]


def test_the_first_epoch_is_no_step_of_the_weights_adam():
    # Steps without a gradient would make the first ones with a gradient three times too long.
    balancer = isonomy.build("gradnorm", tasks=3, baseline="epoch")
    for _ in range(50):
        M().step(balancer)
    balancer.epoch_end()
    M(targets=(0.0, 3.0, 1.0)).step(balancer)
    (w,) = balancer.parameters()
    close((w - 1).abs(), [0.025, 0.025, 0.025], 1e-5)


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"simplex": "sparse"}, {"baseline": "year"}])
def test_unusable_options(options):
    with pytest.raises(isonomy.IsonomyError, match=next(iter(options))):
        GradNorm(**options)


def test_losses_have_to_be_positive():
    with pytest.raises(isonomy.IsonomyError, match="'1'"):
        M(scales=(1, -1, 1)).step(isonomy.build("gradnorm", tasks=3))


def test_a_batch_without_labels_of_a_task_leaves_it_out():
    """As of parts of people, where nobody is in the batch: a loss of 0 without a gradient."""
    balancer = isonomy.build("gradnorm", 3)
    for factor in (0.0, 1.0, 0.0):
        theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        parts = tensor([[3.0, 0], [0, 1], [1, 1]]) @ theta + tensor([2.0, 1.0, 3.0])
        balancer([parts[0], parts[1] * factor, parts[2]], shared=[theta]).backward()
        assert (balancer.report.weights[1] == 0) == (factor == 0)
        assert theta.grad.isfinite().all()
    (stage,) = balancer.stages
    assert stage.first.tolist() == [2, 1, 3]
    assert all(value.isfinite().all() for value in stage.parameters())


def test_losses_of_0_with_gradients_are_no_baseline():
    balancer = isonomy.build("gradnorm", 2)
    (stage,) = balancer.stages
    for _ in range(3):
        theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        balancer([theta[0] * 2, theta[1] + theta[0]], shared=[theta]).backward()
    assert stage.first.isnan().all()
    assert all(value.isfinite().all() for value in stage.parameters())
