import torch
from torch import nn

from isonomy.engine import measure, trace


def test_trace_tells_shared_from_heads():
    torch.manual_seed(0)
    trunk, a, b = nn.Linear(2, 3), nn.Linear(3, 1), nn.Linear(3, 1)
    z = trunk(torch.ones(1, 2))
    graph = trace([a(z).sum(), b(z).sum()], None)
    assert {id(t) for t in graph.shared} == {id(p) for p in trunk.parameters()}
    assert [{id(t) for t in head} for head in graph.heads] == [{id(p) for p in m.parameters()} for m in (a, b)]
    graph = trace([a(z).sum(), b(z).sum()], [z])
    assert graph.level == "features"
    assert not graph.entangled
    both = torch.cat([a(z), b(z)])
    assert trace(list(both[:, 0]), [z]).entangled


def test_one_task_shares_everything():
    layer = nn.Linear(2, 1)
    assert len(trace([layer(torch.ones(1, 2)).sum()], None).shared) == 2


def test_losses_from_one_vector():
    theta = torch.ones(3, requires_grad=True)
    losses = (theta * 2).unbind()
    measured = measure(losses, theta)
    torch.testing.assert_close(measured.norms, torch.full((3,), 2.0).double())
    torch.testing.assert_close(measured.cosines, torch.eye(3).double())


def test_a_function_that_keeps_a_variable_is_no_leaf():
    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.variable = x
            return 2 * x

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    theta = torch.ones(2, requires_grad=True)
    graph = trace([Scale.apply(theta).sum()], None)
    assert len(graph.shared) == 1
    assert graph.shared[0] is theta
