"""FSDP2: what equals one process, and that the rest is refused."""

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import isonomy
from tests.distributed.processes import message, run

METHODS = ["imtl_g", "nash_mtl", "graddrop", "imtl", "uw"]
# What is wrapped, the last one outermost.
ONE_ROOT = {
    "root": lambda net: [net],
    "blocks": lambda net: [*net.trunk, net],
    "blocks and heads": lambda net: [*net.trunk, *net.heads, net],
}
MANY_ROOTS = {
    "trunk and heads": lambda net: [net.trunk, *net.heads],
    "heads": lambda net: [*net.heads],
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(3, 5), nn.Linear(5, 5)]
        self.trunk = nn.Sequential(*(nn.Sequential(layer, nn.Tanh()) for layer in layers))
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))
        self.double()

    def forward(self, x):
        z = self.trunk(x)
        return z, [head(z) for head in self.heads]


def train(name, wrapped=None, rank=0, world=1, level="features", accumulate=False):
    """The gradients of three steps by parameter."""
    net, balancer = Net(), isonomy.build(name, 3)
    for module in wrapped(net) if wrapped else ():
        fully_shard(module, mesh=init_device_mesh("cpu", (world,)))
    optimizer = torch.optim.SGD(net.parameters(), 0.001)
    generator = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(3):
        optimizer.zero_grad()
        for last in (False, True) if accumulate else (True,):
            if accumulate and wrapped:
                net.set_requires_gradient_sync(last)
            x, y = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64).tensor_split(world, 1)[rank]
            z, outputs = net(x)
            losses = [10.0**t * (out[:, 0] - y[:, t]).square().mean() for t, out in enumerate(outputs)]
            shared = {"features": z, "module": net.trunk, "parameters": [*net.trunk.parameters()], "nothing": None}
            balancer(losses, shared=shared[level]).backward()
        optimizer.step()
        gradients = {key: parameter.grad for key, parameter in net.named_parameters()}
        seen.append({k: g.full_tensor() if hasattr(g, "full_tensor") else g for k, g in gradients.items()})
    return seen


def worker(rank, world):
    found = {(name, how): train(name, wrap, rank, world) for name in METHODS for how, wrap in ONE_ROOT.items()}
    found["accumulation"] = train("imtl_g", ONE_ROOT["blocks"], rank, world, accumulate=True)
    found["uw", "trunk and heads"] = train("uw", MANY_ROOTS["trunk and heads"], rank, world)
    for how, wrap in (ONE_ROOT | MANY_ROOTS).items():
        for level in ("module", "parameters", "nothing"):
            found[how, level] = message(lambda: train("imtl_g", wrap, rank, world, level))  # noqa: B023
    for how, wrap in MANY_ROOTS.items():
        found[how, "features"] = message(lambda: train("imtl_g", wrap, rank, world))  # noqa: B023
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run(worker, 2, tmp_path_factory.mktemp("shards"))


def assert_same(found, key, expected):
    for results in found:
        for actual, step in zip(results[key], expected, strict=True):
            for name, gradient in step.items():
                scale = float(gradient.abs().max())
                torch.testing.assert_close(actual[name], gradient, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("how", ONE_ROOT)
@pytest.mark.parametrize("name", METHODS)
def test_features_equal_one_process(found, name, how):
    assert_same(found, (name, how), train(name))


def test_accumulation_equals_one_process(found):
    assert_same(found, "accumulation", train("imtl_g", accumulate=True))


def test_a_loss_balancer_takes_any_wrapping(found):
    assert_same(found, ("uw", "trunk and heads"), train("uw"))


@pytest.mark.parametrize("level", ["module", "parameters", "nothing"])
@pytest.mark.parametrize("how", [*ONE_ROOT, *MANY_ROOTS])
def test_sharded_parameters_are_refused(found, how, level):
    for results in found:
        assert "sharded over the processes" in results[how, level]


@pytest.mark.parametrize("how", MANY_ROOTS)
def test_heads_under_another_root_are_refused(found, how):
    for results in found:
        assert "under another root" in results[how, "features"]
