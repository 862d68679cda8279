"""Methods that read the task gradients themselves, several batches a step, and levels."""

import pytest
import torch

import isonomy
from isonomy import Balancer, IsonomyError
from tests.fixtures import close, tensor


class Elements(isonomy.GradientBalancer):
    """Sums the absolute values, element by element; remembers what it saw."""

    jacobian = True
    batches = 2

    def forward(self, measurement):
        self.seen = measurement
        return [torch.stack(parts).abs().sum(0) for parts in zip(*measurement.jacobian.rows, strict=True)]


def two_batches(J):
    theta, head = (torch.zeros(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    batches = [[j @ theta + head[t] + 1 + b for t, j in enumerate(rows)] for b, rows in enumerate(J)]
    return theta, head, batches


def test_a_balancer_may_return_the_aggregate_itself():
    J = tensor([[1, -2], [-3, 1]])
    stage = Elements()
    balancer = Balancer(stage, tasks=2)
    theta, head, (losses, _) = two_batches([J, J])
    balancer(losses, shared=[theta]).backward()
    close(theta.grad, [4, 3])
    close(head.grad, [1, 1])
    assert balancer.report.weights is None
    assert balancer.report.alignment is None
    close(balancer.report.norms, J.norm(dim=1))
    close(balancer.aggregate(J), [4, 3])
    assert balancer.needs == ("gramian", "jacobian")
    with pytest.raises(IsonomyError, match=r"use \.aggregate\(jacobian\)"):
        balancer.weights(J @ J.T)


def test_several_batches_are_kept_apart():
    J = tensor([[[1, 0], [0, 1]], [[3, 0], [0, -2]]])
    stage = Elements()
    balancer = Balancer(isonomy.loss.Fixed([1.0, 2.0]), stage, tasks=2)
    theta, head, batches = two_batches(J)
    loss = balancer(batches, shared=[theta])
    loss.backward()
    assert loss == 1.5 + 1.5
    first, second = stage.seen.jacobian.batches
    close(torch.stack([row[0] for row in first]), J[0] * tensor([[1], [2]]))
    close(torch.stack([row[0] for row in second]), J[1] * tensor([[1], [2]]))
    close(theta.grad, [2, 1])
    close(head.grad, [1, 2])
    close(balancer.report.losses, [1.5, 1.5])
    close(balancer.report.norms, [2, 1])


def test_batches_that_cannot_be():
    balancer = Balancer(Elements(), tasks=2, allow_missing=True)
    one, two = torch.ones(2, requires_grad=True).unbind()
    with pytest.raises(IsonomyError, match="losses holds 3 batches, and the method takes one batch or 2 a step"):
        balancer([[one, two]] * 3)
    with pytest.raises(IsonomyError, match="other tasks in one batch than in another"):
        balancer([{"0": one}, {"0": one, "1": two}])
    with pytest.raises(IsonomyError, match="losses holds 2 batches, and the method takes one batch a step"):
        isonomy.build("ew", 2)([[one, two]] * 2)
    with pytest.raises(IsonomyError, match=r"update_every .* 'Elements' needs every step's gradients"):
        Balancer(Elements(), tasks=2, update_every=2)
    theta, _, batches = two_batches(tensor([[[1, 0], [0, 1]], [[3, 0], [0, -1]]]))
    with pytest.raises(IsonomyError, match="'Elements' needs the gradients of all shared parameters"):
        balancer(batches, shared=[theta], probe=[theta])


class OnlyFeatures(Elements):
    levels = ("features",)


class OnlyParameters(Elements):
    levels = ("parameters",)


def test_levels_of_a_method_that_reads_gradients():
    theta = torch.ones(2, requires_grad=True)
    feature = theta * 1
    balancer = Balancer(OnlyFeatures(), tasks=2)
    assert balancer.levels == ("features",)
    with pytest.raises(IsonomyError, match="'OnlyFeatures' works on a feature"):
        balancer([feature.sum(), feature.prod()], shared=[theta])
    with pytest.raises(IsonomyError, match="'OnlyFeatures' works on a feature"):
        balancer.aggregate(torch.eye(2))
    with pytest.raises(IsonomyError, match=r"'OnlyParameters' compares .* pass shared=module or parameters\."):
        Balancer(OnlyParameters(), tasks=2)([feature.sum(), feature.prod()], shared=feature)


def test_a_balanced_loss_outside_a_later_stages_domain_is_called_so():
    balancer = isonomy.build("log+uw", tasks=["a", "b"])
    with pytest.raises(IsonomyError, match=r"The balanced loss of task 'b' is -0\.693147, and UW needs"):
        balancer([torch.tensor(2.0, requires_grad=True), torch.tensor(0.5, requires_grad=True)])
