"""Every kind of graph: pauses, heads, hooks and what is held."""

import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from isonomy import IsonomyError
from isonomy.engine import trace
from isonomy.engine.lean import lean
from tests.engine.compare import ghosts, same
from tests.engine.test_ghost import losses_of


def layer(width=8, out=None):
    return nn.Sequential(nn.Linear(width, out or width), nn.Tanh())


def parameters(*modules):
    return [parameter for module in modules for parameter in module.parameters()]


class Residual(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        return x + self.inner(x)


def test_deep_stack_pauses_between_layers():
    trunk = nn.Sequential(*(layer() for _ in range(6)))
    found = same(losses_of(trunk(torch.randn(2, 8))), trunk.parameters())
    assert len(found) > 4
    assert ghosts(found) == 6


@pytest.mark.parametrize("batch", [2, 40])
def test_residual(batch):
    trunk = nn.Sequential(*(Residual() for _ in range(4)))
    assert len(same(losses_of(trunk(torch.randn(batch, 8))), trunk.parameters())) > 2


@pytest.mark.parametrize("batch", [2, 40])
def test_skips_like_a_u_net(batch):
    down, up = [layer() for _ in range(3)], [layer(16, 8) for _ in range(3)]
    skips, z = [], torch.randn(batch, 8)
    for module in down:
        z = module(z)
        skips.append(z)
    for module in up:
        z = module(torch.cat([z, skips.pop()], dim=1))
    same(losses_of(z), parameters(*down, *up))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
@pytest.mark.parametrize("batch", [2, 40])
def test_losses_at_several_depths(batch, order):
    stages = [layer() for _ in range(4)]
    z, features = torch.randn(batch, 8), []
    for stage in stages:
        z = stage(z)
        features.append(z)
    heads = [nn.Linear(8, 2) for _ in stages]
    losses = [head(feature).square().mean() for head, feature in zip(heads, features, strict=True)]
    same([losses[i] for i in order], parameters(*stages), keep=True)
    # One head that reads all depths, and a task of its own for each.
    both = [nn.Linear(8, 2)(sum(features)).square().mean(), *losses]
    same([both[i] for i in order], parameters(*stages))


@pytest.mark.parametrize("batch", [2, 40])
def test_weights_used_in_several_places(batch):
    once, twice = layer(), layer()
    x = torch.randn(batch, 8)
    same(losses_of(once(twice(twice(x)))), parameters(once, twice))
    z = twice(once(twice(x)))
    same(losses_of(z), parameters(once, twice), keep=True)
    for _ in range(3):
        z = twice(layer()(z))
    same(losses_of(z), parameters(once, twice))


def test_some_layers_frozen():
    trunk = nn.Sequential(*(layer() for _ in range(4)))
    trunk[0].requires_grad_(False)
    trunk[2].requires_grad_(False)
    assert ghosts(same(losses_of(trunk(torch.randn(2, 8))), trunk.parameters())) == 2


def test_only_some_layers_shared():
    """What lies below counts as a head, and gets every task's own gradient."""
    trunk = nn.Sequential(*(layer() for _ in range(4)))
    losses = losses_of(trunk(torch.randn(2, 8)))
    for number in range(4):
        same(losses, trunk[number].parameters(), keep=True)
    same(losses, parameters(trunk[0], trunk[3]), keep=True)
    same(losses, [trunk[2][0].bias])


def test_tasks_that_share_little():
    a, b, c = layer(), layer(), layer()
    x = torch.randn(2, 8)
    unused = nn.Parameter(torch.ones(3))
    z = c(x)
    losses = [a(z).square().sum(), b(z).sum(), z.square().sum(), (a(x).sum() * b(x)).sum(), b(x).sum()]
    same(losses, [*parameters(a, b, c), unused], keep=True)
    same(losses[3:], [unused, *parameters(a, b)])


def test_losses_that_depend_on_each_other():
    trunk = nn.Sequential(layer(), layer())
    first, second = losses_of(trunk(torch.randn(2, 8)), tasks=2)
    same([first, first, first * second, second.exp(), first + second], trunk.parameters())


def test_losses_next_to_the_parameters():
    w = nn.Parameter(torch.randn(3))
    number = nn.Parameter(torch.randn(()))
    same([w.sum(), w.square().sum() * number, number, number.square()], [w, number])
    same([number, number], [number])


def test_several_outputs_of_one_node():
    a, b = nn.Linear(8, 12), nn.Linear(4, 4)
    p, q, r = a(torch.randn(2, 8)).split(4, dim=1)
    losses = [b(p).square().sum() + q.sum(), (b(q) * r).sum(), r.square().sum()]
    same(losses, parameters(a, b))
    values, _ = a(torch.randn(2, 8)).sort(dim=1)
    same([b(values[:, :4]).square().sum(), *(v.sum() for v in values.unbind(1))], parameters(a, b))


def test_one_task():
    trunk = nn.Sequential(layer(), layer())
    same(losses_of(trunk(torch.randn(2, 8)), tasks=1), trunk.parameters())


@pytest.mark.parametrize("tasks", [2, 5])
def test_float32(tasks):
    trunk = nn.Sequential(*(Residual(16) for _ in range(3))).float()
    z = trunk(torch.randn(4, 16, dtype=torch.float32))
    heads = [nn.Linear(16, 2).float() for _ in range(tasks)]
    assert ghosts(same([head(z).square().mean() for head in heads], trunk.parameters(), tolerance=1e-5)) == 6


def test_hooks_of_parameters_see_no_single_task():
    trunk, seen = nn.Sequential(layer(), layer()), []
    heads = [nn.Linear(8, 2) for _ in range(3)]
    for parameter in parameters(trunk, *heads):
        parameter.register_hook(seen.append)
        parameter.register_post_accumulate_grad_hook(seen.append)
    z = trunk(torch.randn(2, 8))
    losses = [head(z).square().mean() for head in heads]
    graph = trace(losses, list(trunk.parameters()))
    lean(losses, [torch.ones(())] * 3, graph).combine(torch.ones(3))
    assert not seen
    assert all(parameter.grad is None for parameter in parameters(trunk, *heads))
    heads[0](trunk(torch.randn(2, 8))).sum().backward()
    assert seen


@pytest.mark.parametrize("where", range(5))
def test_hooks_of_activations_change_gradients_once(where):
    """As gradient reversal by a hook does: the pass must not pause there."""
    modules = [layer() for _ in range(5)]
    z = torch.randn(2, 8)
    for number, module in enumerate(modules):
        z = module(z)
        if number == where:
            z.register_hook(lambda g: -2 * g)
    same(losses_of(z), parameters(*modules))


def test_hooked_everywhere():
    modules = [Residual() for _ in range(3)]
    z = torch.randn(2, 8)
    for module in modules:
        z = module(z)
        z.register_hook(lambda g: g.flip(0))
    same(losses_of(z), parameters(*modules))


@pytest.mark.parametrize("where", range(3))
def test_hooks_that_change_gradients_between_pauses_are_not_called_with_nothing(where):
    """A pass that has paused above them goes on below them, where a skip leads past them."""
    stem, modules = layer(), [layer() for _ in range(4)]
    seen, first = [], stem(torch.randn(2, 8))
    z = first
    for number, module in enumerate(modules):
        z = module(z)
        if number == where:
            z.register_hook(lambda g: seen.append(g) or 1.5 * g)
    same(losses_of(z + first), parameters(stem, *modules))
    assert seen
    assert all(g is not None for g in seen)


def test_a_hook_at_a_loss_that_another_reads():
    module = layer()
    loss = module(torch.randn(2, 8)).square().mean()
    loss.register_hook(lambda g: 2 * g)
    same([loss, 3 * loss], parameters(module))


def test_sparse_gradients_are_refused():
    table = nn.Embedding(10, 4, sparse=True)
    z = table(torch.tensor([1, 2]))
    losses = [z.sum(), z.square().sum()]
    with pytest.raises(IsonomyError, match="sparse=False"):
        lean(losses, [torch.ones(())] * 2, trace(losses, list(table.parameters())))


@pytest.mark.parametrize("retain", [True, False])
def test_graph_is_used_up_unless_it_is_to_stay(retain):
    trunk = nn.Sequential(layer(), layer())
    losses = losses_of(trunk(torch.randn(2, 8)))
    graph = trace(losses, list(trunk.parameters()), retain=retain)
    found = lean(losses, [torch.ones(())] * 3, graph)
    combined = found.combine(torch.tensor([1.0, 2.0, 3.0]))
    weighted = losses[0] + 2 * losses[1] + 3 * losses[2]
    if retain:
        for actual, expected in zip(combined, torch.autograd.grad(weighted, list(trunk.parameters())), strict=True):
            torch.testing.assert_close(actual, expected)
    else:
        with pytest.raises(RuntimeError, match="second time"):
            weighted.backward()


def test_nothing_is_left_behind():
    trunk = nn.Sequential(layer(), layer())
    z = trunk(torch.randn(2, 8))
    losses = losses_of(z)
    graph = trace(losses, list(trunk.parameters()))
    found = lean(losses, [torch.ones(())] * 3, graph)
    found.combine(torch.ones(3))
    alive = weakref.ref(z)
    del z, losses, graph, found
    gc.collect()
    assert alive() is None


@st.composite
def networks(draw):
    """A random graph over features of width 6, and the losses at some of them."""
    torch.manual_seed(draw(st.integers(0, 10_000)))
    batch = draw(st.sampled_from([1, 3, 12]))
    weights = [nn.Linear(6, 6, bias=draw(st.booleans())) for _ in range(draw(st.integers(1, 4)))]
    norm = nn.LayerNorm(6)
    features = [torch.randn(batch, 6)]
    for _ in range(draw(st.integers(1, 8))):
        a, b = (draw(st.sampled_from(features[-4:])) for _ in range(2))
        w = draw(st.sampled_from(weights))
        kind = draw(st.sampled_from(["linear", "linear", "residual", "sum", "gate", "norm", "split", "transposed"]))
        features.append(
            {
                "linear": lambda a=a, w=w: torch.tanh(w(a)),
                "residual": lambda a=a, b=b, w=w: a + w(b),
                "sum": lambda a=a, b=b: a + b,
                "gate": lambda a=a, b=b, w=w: torch.sigmoid(w(a)) * b,
                "norm": lambda a=a: norm(a),
                "split": lambda a=a, w=w: torch.cat(w(a).split(3, dim=1)[::-1], dim=1),
                "transposed": lambda a=a, w=w: a @ w.weight,
            }[kind]()
        )
    z = torch.tanh(weights[0](features[-1]))
    tops = [draw(st.sampled_from([z, *features[1:]])) for _ in range(draw(st.integers(1, 4)))]
    losses = [(nn.Linear(6, 1)(top) + weights[0](z).mean()).square().mean() for top in tops]
    shared = parameters(*weights, norm)
    some = draw(st.lists(st.sampled_from(shared), min_size=1, unique_by=id))
    return losses, [weights[0].weight, *(p for p in some if p is not weights[0].weight)]


@given(networks())
def test_random_graphs(network):
    same(*network)
