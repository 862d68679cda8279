"""DistributedDataParallel with parameters that no loss reaches, and with a static graph."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import isonomy
from tests.distributed.processes import message, run

KINDS = ["find_unused_parameters", "static_graph"]
PLAIN = "broadcast_buffers"  # which is on anyway: every parameter has to be used
LEVELS = ["features", "parameters"]
# Where the balancer is called: by the model itself; by the training loop, on a feature that went through the wrapper
# with the outputs or was put aside.
INSIDE = [(kind, "inside", level) for kind in (PLAIN, *KINDS) for level in LEVELS]
OUTSIDE = [("find_unused_parameters", "put aside", "features"), ("find_unused_parameters", "returned", "parameters")]
REFUSED = {
    ("find_unused_parameters", "returned", "features"): "does not reach shared=",
    ("static_graph", "returned", "features"): "does not reach shared=",
    ("static_graph", "put aside", "features"): "static_graph=True",
    ("static_graph", "returned", "parameters"): "static_graph=True",
}


class Net(nn.Module):
    def __init__(self, kind, where, level):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))
        self.unused = nn.Identity() if kind == PLAIN else nn.Linear(3, 3)
        self.double()
        self.where, self.level, self.balancer = where, level, isonomy.build("imtl_g", 3)

    def balance(self, z, outputs, y):
        losses = [10.0**t * (out[:, 0] - y[:, t]).square().mean() for t, out in enumerate(outputs)]
        return self.balancer(losses, shared=z if self.level == "features" else self.trunk)

    def forward(self, x, y):
        self.z = self.trunk(x)
        outputs = [head(self.z) for head in self.heads]
        return self.balance(self.z, outputs, y) if self.where == "inside" else (self.z, outputs)


def train(kind, where, level, rank=0, world=1):
    """The gradients of three steps."""
    net = Net(kind, where, level)
    model = DistributedDataParallel(net, **{kind: True}) if world > 1 else net
    optimizer = torch.optim.SGD(net.parameters(), 0.001)
    generator = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(3):
        optimizer.zero_grad()
        x, y = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64).tensor_split(world, 1)[rank]
        result = model(x, y)
        if where != "inside":
            z, outputs = result
            result = net.balance(net.z if where == "put aside" else z, outputs, y)
        result.backward()
        optimizer.step()
        seen.append({key: parameter.grad.clone() for key, parameter in net.named_parameters() if "unused" not in key})
    return seen


def worker(rank, world):
    found = {case: train(*case, rank, world) for case in [*INSIDE, *OUTSIDE]}
    return found | {case: message(lambda: train(*case, rank, world)) for case in REFUSED}  # noqa: B023


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run(worker, 2, tmp_path_factory.mktemp("unused"))


@pytest.mark.parametrize("case", [*INSIDE, *OUTSIDE], ids="-".join)
def test_equals_one_process(found, case):
    expected = train(*case)
    for results in found:
        for actual, step in zip(results[case], expected, strict=True):
            for key, gradient in step.items():
                atol = 1e-12 * float(gradient.abs().max())
                torch.testing.assert_close(actual[key], gradient, rtol=0, atol=atol)


@pytest.mark.parametrize("case", REFUSED, ids="-".join)
def test_what_would_come_out_wrong_is_refused_with_the_way_out(found, case):
    for results in found:
        assert REFUSED[case] in results[case]
        assert "call the balancer inside forward" in results[case]
