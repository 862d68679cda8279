"""``torch.compile`` of encoder, heads, the whole model and the training step, against the same without it.

The backend ``aot_eager`` traces forward and backward passes as ``inductor`` does and runs them by plain kernels, so
results are equal to the last bits; what is generated code is left to one slow test.
"""

import copy

import pytest
import torch
from torch import nn

import isonomy
from isonomy import IsonomyError
from tests.sequential import LEVELS, READING, Net, Reference, build, step

CASES = [*((level, name) for level in LEVELS[:2] for name in ("imtl_g", *READING)), ("lean", "imtl_g")]
DONATED = "donated_buffer = False before anything is compiled"


def compiled(function, backend="aot_eager"):
    return torch.compile(function, backend=backend)


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    torch.compiler.reset()


class Compiled(Net):
    """Compiles its encoder, its heads or both; activations between its layers are donated to backward passes."""

    def __init__(self, parts, backend="aot_eager"):
        super().__init__(
            lambda: nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 5), nn.GELU()),
            lambda: nn.Sequential(nn.Linear(5, 5), nn.GELU(), nn.Linear(5, 2)),
        )
        self.encode = self.trunk
        self.read = [lambda z, head=head: head(z) for head in self.heads]
        if "encoder" in parts:
            self.encode = compiled(self.trunk, backend)
        if "heads" in parts:
            self.read = [compiled(head, backend) for head in self.heads]
        if "all heads" in parts:
            self.outputs = compiled(self.outputs, backend)

    def features(self):
        return [self.encode(self.x)]

    def outputs(self, features):
        return [read(features[0]) for read in self.read]


def trained(name, level, parts, backend="aot_eager", steps=2):
    net, plain = Compiled(parts, backend), Compiled(())
    balancer, reference = build(name, level), Reference(name, level)
    optimizers = [torch.optim.SGD(model.parameters(), 0.01) for model in (net, plain)]
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        step(balancer, net, level).backward()
        reference.backward(plain)
        for p, q in zip(net.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-9)
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize(("level", "name"), CASES)
@pytest.mark.parametrize("parts", [("encoder",), ("all heads",), ("encoder", "heads")], ids="+".join)
def test_compiled_encoder_and_heads_equal_plain_autograd(parts, level, name):
    trained(name, level, parts)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_generated_code_equals_plain_autograd(level, tmp_path, monkeypatch):
    # A cache that another test has filled holds backward passes that may run once only.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    trained("imtl_g", level, ("encoder", "heads"), backend="inductor")


@pytest.mark.parametrize("level", LEVELS)
def test_a_model_compiled_whole_works_at_the_parameters_and_is_refused_at_its_feature(level):
    net = Net()

    @compiled
    def forward():
        features = net.features()
        return features, net.losses(features)

    features, losses = forward()
    if level == "features":
        with pytest.raises(IsonomyError, match=r"'0', '1' and '2' .* torch.compile, compile encoder and heads apart"):
            isonomy.build("imtl_g", 3)(losses, shared=features)
        sum(losses).backward()  # The graph is as it was.
        return
    isonomy.build("imtl_g", 3)(losses, shared=net.trunk).backward()
    plain = Net()
    Reference("imtl_g", level).backward(plain)
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("name", ["uw", "db_mtl"])
def test_a_compiled_training_step_pauses_at_the_balancer(name):
    net, plain = Net(), Net()
    balancer, reference = build(name, "parameters"), Reference(name, "parameters")

    @compiled
    def training_step():
        return step(balancer, net, "parameters")

    for _ in range(3):
        for model in (net, plain):
            model.zero_grad()
        training_step().backward()
        reference.backward(plain)
        for p, q in zip(net.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("level", "parts", "options"),
    [
        ("parameters", ("encoder",), {}),
        ("lean", ("encoder",), {}),
        ("features", ("all heads",), {}),
        ("features", ("heads",), {"retain_graph": True}),
    ],
)
def test_a_backward_pass_that_runs_once_only_is_refused_before_anything_has_changed(level, parts, options):
    def warm():
        # The first backward pass is a plain one, so it is compiled to reuse the memory of what it reads.
        torch.compiler.reset()
        net = Compiled(parts)
        sum(net.losses(net.features())).backward()
        net.zero_grad()
        return net

    net, balancer = warm(), build("nash_mtl", level)
    state = copy.deepcopy(balancer.state_dict())
    features = net.features()
    losses = net.losses(features)
    shared = features if level == "features" else net.trunk
    with pytest.raises(IsonomyError, match=DONATED):
        balancer(losses, shared=shared, **options)
    assert isonomy.testing.same_state(state, balancer.state_dict())
    assert all(p.grad is None for p in net.parameters())
    sum(losses).backward()

    with torch._functorch.config.patch(donated_buffer=False):
        net, plain = warm(), Compiled(())
        step(balancer, net, level, **options).backward()
    Reference("nash_mtl", level).backward(plain)
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
