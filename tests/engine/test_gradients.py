import pytest
import torch
from torch import nn

from isonomy import IsonomyError
from isonomy.engine import accumulated, measure


def test_measure_changes_nothing():
    torch.manual_seed(0)
    trunk, a, b = nn.Linear(2, 3), nn.Linear(3, 1), nn.Linear(3, 1)
    z = trunk(torch.ones(4, 2))
    losses = [a(z).square().mean(), b(z).square().mean()]
    gramian = measure(losses, z)
    gradients = [torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses]
    torch.testing.assert_close(gramian.norms, torch.stack([g.norm() for g in gradients]).double())
    assert trunk.weight.grad is None
    sum(losses).backward()
    with pytest.raises(IsonomyError, match="loss 1"):
        measure([a(z).sum(), torch.ones(1, requires_grad=True).sum()], z)


def test_accumulated_leaves_out_what_has_no_gradient():
    a, b = torch.zeros(1), torch.zeros(1)
    sums = accumulated([(a, torch.ones(1)), (b, None), (a, torch.ones(1))])
    assert sums == {a: 2}
