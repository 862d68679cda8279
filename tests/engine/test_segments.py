"""Where passes pause: what is run once, what is freed, what is held."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import isonomy
from isonomy import engine
from isonomy.engine import pays, task_gradients, trace
from isonomy.engine.lean import lean
from tests.engine.compare import same
from tests.engine.test_ghost import losses_of
from tests.engine.test_lean import Residual, layer


def test_heads_are_freed_on_the_way():
    trunk, heads = nn.Sequential(layer(), layer()), [layer() for _ in range(3)]
    for retain in (True, False):
        z = trunk(torch.randn(2, 8))
        tops = [head(z) for head in heads]
        losses = [top.square().mean() for top in tops]
        lean(losses, [torch.ones(())] * 3, trace(losses, list(trunk.parameters()), retain=retain))
        for top in tops:
            if retain:
                torch.testing.assert_close(top.grad_fn._saved_result, top)
            else:
                with pytest.raises(RuntimeError, match="freed"):
                    _ = top.grad_fn._saved_result


@pytest.mark.parametrize("tasks", [1, 3])
def test_what_lies_between_heads_and_parameters_is_not_freed_by_the_first_task(tasks):
    trunk, neck = nn.Sequential(layer(), layer()), layer()
    z = neck(trunk(torch.randn(2, 8)))
    assert same([nn.Linear(8, 2)(z).square().mean() for _ in range(tasks)], trunk.parameters())[0].last


def test_passes_pause_where_little_is_held():
    """Blocks that are wide inside: the narrow places between them are as good for the budget, and cheaper."""
    width, inside, batch = 16, 256, 40
    trunk = nn.Sequential(*(nn.Sequential(layer(width, inside), layer(inside, width)) for _ in range(8)))
    found = same(losses_of(trunk(torch.randn(batch, width))), trunk.parameters())
    pauses = [
        math.prod(node._input_metadata[0].shape)
        for segment in found[1:]
        for node, _ in segment.targets
        if node in segment.stops
    ]
    assert len(pauses) >= 4
    assert set(pauses) == {batch * width}


@pytest.mark.parametrize("kind", ["mlp", "vit"])
def test_nothing_of_the_size_of_all_rows_is_held(kind, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    from peak import memory

    tasks = 8
    if kind == "mlp":
        trunk, x = nn.Sequential(*(layer(128) for _ in range(8))), torch.randn(16, 128)
    else:
        trunk, x = nn.Sequential(*(Residual(64) for _ in range(8))), torch.randn(4, 16, 64)
    heads = [nn.Linear(x.shape[-1], 2) for _ in range(tasks)]
    shared = list(trunk.parameters())
    size = sum(parameter.numel() for parameter in shared)

    def step(rows):
        z = trunk(x)
        losses = [head(z).square().mean() for head in heads]
        graph, seeds = trace(losses, shared), [torch.ones(())] * tasks
        if rows:
            return task_gradients(losses, seeds, graph)
        return lean(losses, seeds, graph).combine(torch.ones(tasks))

    peaks = [memory(lambda rows=rows: step(rows), lambda: None, torch.device("cpu")).peak / 8 for rows in (True, False)]
    assert peaks[0] > tasks * size
    assert peaks[1] < (2 + tasks / 4) * size


class Counted(torch.autograd.Function):
    count = 0

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        Counted.count += 1
        return 2 * gradient


def test_the_weighted_pass_starts_below_the_heads():
    trunk = layer()
    z = Counted.apply(trunk(torch.randn(2, 8)))
    losses = [nn.Linear(8, 2)(z).square().mean() for _ in range(3)]
    found = lean(losses, [torch.ones(())] * 3, trace(losses, list(trunk.parameters())))
    assert Counted.count == 3
    found.combine(torch.ones(3))
    assert Counted.count == 3


def perceptron(width, batch):
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    return trunk, torch.randn(batch, width)


@pytest.mark.parametrize(
    ("width", "batch", "tasks", "expected"),
    [(256, 16, 3, True), (256, 16, 1, False), (16, 256, 3, False), (16, 256, 40, False)],
)
def test_pausing_pays_where_layers_are_wider_than_the_batch(width, batch, tasks, expected):
    trunk, x = perceptron(width, batch)
    losses = [z.square().mean() for z in trunk(x).chunk(tasks, dim=1)]
    assert pays(losses, trace(losses, list(trunk.parameters()))) == expected


def test_pausing_does_not_pay_for_three_tasks_of_many_positions():
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    losses = [z.square().mean() for z in trunk(torch.randn(4, 3, 16, 16)).chunk(3, dim=1)]
    assert not pays(losses, trace(losses, list(trunk.parameters())))


@pytest.mark.parametrize(
    ("memory", "batch", "taken"), [("auto", 16, 1), ("auto", 256, 0), ("full", 16, 0), ("lean", 256, 1)]
)
def test_a_balancer_takes_the_faster_way_unless_told(memory, batch, taken, monkeypatch):
    calls = []
    monkeypatch.setattr(engine, "lean", lambda *arguments, **options: calls.append(1) or lean(*arguments, **options))
    trunk, x = perceptron(64, batch)
    losses = [z.square().mean() for z in trunk(x).chunk(4, dim=1)]
    expected = [torch.autograd.grad(loss, list(trunk.parameters()), retain_graph=True) for loss in losses]
    balancer = isonomy.build("imtl_g", 4, memory=memory)
    balancer(losses, shared=trunk).backward()
    assert len(calls) == taken
    for parameter, *rows in zip(trunk.parameters(), *expected, strict=True):
        combined = sum(w * row for w, row in zip(balancer.report.weights, rows, strict=True))
        torch.testing.assert_close(parameter.grad, combined, rtol=0, atol=1e-12 * float(combined.abs().max()))


def test_hooks_that_look_see_gradients_alone_by_default(monkeypatch):
    calls, seen = [], []
    monkeypatch.setattr(engine, "lean", lambda *arguments, **options: calls.append(1) or lean(*arguments, **options))
    layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(6))
    x = torch.randn(4, 64)
    for first, second in zip(layers[::2], layers[1::2], strict=True):
        inner = first(x).tanh()
        inner.register_hook(lambda gradient: seen.append(float(gradient.norm())))
        x = x + second(inner)
    isonomy.build("imtl_g", 4)([z.square().mean() for z in x.chunk(4, dim=1)], shared=layers).backward()
    assert calls
    assert seen
