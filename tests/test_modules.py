"""Kinds of modules and training steps, each against plain autograd, one task after the other."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import isonomy
from isonomy import IsonomyError
from tests.sequential import CASES, LEVELS, Net, Reference, build, step


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(2, 5, batch_first=True)

    def forward(self, x):
        return self.rnn(x.view(8, 2, 2))[0][:, -1]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.down = nn.Linear(1, 6), nn.Linear(24, 5)
        self.block = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, x):
        return self.down(self.block(self.embed(x[..., None])).flatten(1))


class Parameters(nn.Module):
    """A trunk whose weights stand in containers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ParameterList([torch.randn(4, 6) / 2, torch.randn(6, 5) / 2])
        self.extra = nn.ParameterDict({"bias": torch.randn(5)})

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(x @ layer)
        return x + self.extra["bias"]


class Convolution(nn.Sequential):
    def __init__(self, wrap):
        super().__init__(
            nn.Unflatten(1, (1, 4)), wrap(nn.Conv1d(1, 5, 3)), nn.Tanh(), nn.Flatten(), wrap(nn.Linear(10, 5))
        )


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 5)

    def forward(self, x):
        return torch.tanh(self.table((x > 0).sum(1).clamp(max=3))) + x.sum(1, keepdim=True)


class Stages(Net):
    """Heads read two features, one of which is computed from the other."""

    def features(self):
        early = self.trunk[:2](self.x)
        return [early, self.trunk[2:](early)]

    def outputs(self, features):
        early, late = features
        return [self.heads[0](late), self.heads[1](late + early[:, :5]), self.heads[2](late * early[:, 1:])]


class Tied(Net):
    """A head reads its weights from the trunk."""

    def outputs(self, features):
        first, *others = super().outputs(features)
        return [first + torch.tanh(features[0] @ self.trunk[2].weight)[:, :2], *others]


class CheckpointedTrunk(Net):
    def features(self):
        return [checkpoint(self.trunk, self.x, use_reentrant=False)]


class CheckpointedHeads(Net):
    def outputs(self, features):
        return [checkpoint(head, features[0], use_reentrant=False) for head in self.heads]


class Mapped(Net):
    """Heads run sample by sample under vmap."""

    def outputs(self, features):
        return [torch.func.vmap(head)(features[0]) for head in self.heads]


class Differentiated(Net):
    """The losses hold derivatives, of autograd in one head and of torch.func in another."""

    def outputs(self, features):
        z = features[0]
        first, second, third = super().outputs(features)
        (slope,) = torch.autograd.grad(first.tanh().sum(), z, create_graph=True)
        jacobian = torch.func.vmap(torch.func.jacrev(lambda row: self.heads[1](row).tanh()))(z)
        return [first + slope[:, :2], second + jacobian.square().sum(2), third]


class Complex(Net):
    """A complex feature."""

    def features(self):
        return [torch.fft.fft(self.trunk(self.x))]

    def outputs(self, features):
        return [head(torch.view_as_real(features[0]).norm(dim=-1)) for head in self.heads]


def frozen():
    net = Net()
    net.trunk[0].requires_grad_(False)
    return net


def in_place():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 5), nn.ReLU(inplace=True))


def head_with(*layers):
    return lambda: nn.Sequential(nn.Linear(5, 5), *(layer() for layer in layers), nn.Linear(5, 2))


def trunk_with(*layers):
    return lambda: nn.Sequential(nn.Linear(4, 5), *(layer() for layer in layers), nn.Linear(5, 5))


KINDS = {
    "attention": lambda: Net(Attention),
    "batch_norm": lambda: Net(trunk_with(lambda: nn.BatchNorm1d(5)), head_with(lambda: nn.BatchNorm1d(5))),
    "checkpointed_heads": lambda: CheckpointedHeads(head=head_with(nn.Tanh)),
    "checkpointed_trunk": CheckpointedTrunk,
    "complex": Complex,
    "convolution": lambda: Net(lambda: Convolution(lambda layer: layer)),
    "derivatives": Differentiated,
    "dropout": lambda: Net(trunk_with(nn.Dropout), head_with(nn.Dropout)),
    "embedding": lambda: Net(Words),
    "frozen_layer": frozen,
    "gru": lambda: Net(lambda: Recurrent(nn.GRU)),
    "in_place": lambda: Net(in_place, head_with(lambda: nn.ReLU(inplace=True))),
    "lstm": lambda: Net(lambda: Recurrent(nn.LSTM)),
    "parameter_list": lambda: Net(Parameters),
    "rnn": lambda: Net(lambda: Recurrent(nn.RNN)),
    "spectral_norm": lambda: Net(lambda: Convolution(parametrizations.spectral_norm)),
    "stages": Stages,
    "tied_weights": Tied,
    "vmap": lambda: Mapped(head=head_with(nn.Tanh)),
    "weight_norm": lambda: Net(lambda: Convolution(parametrizations.weight_norm)),
}


@pytest.mark.parametrize(("level", "name"), CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_three_steps_equal_plain_autograd(kind, level, name):
    net, plain = KINDS[kind](), KINDS[kind]()
    balancer, reference = build(name, level), Reference(name, level)
    if (kind, level, name) == ("complex", "features", "graddrop"):
        with pytest.raises(IsonomyError, match="complex"):  # Their numbers have no sign.
            step(balancer, net, level)
        return
    optimizers = [torch.optim.SGD(model.parameters(), 0.01) for model in (net, plain)]
    for number in range(3):
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.manual_seed(number)
        loss = step(balancer, net, level)
        loss.backward()
        torch.manual_seed(number)
        losses = reference.backward(plain)
        torch.testing.assert_close(loss, sum(losses), check_dtype=False)
        for (where, p), q in zip(net.named_parameters(), plain.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), where
            if p.grad is not None:
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-9 * float(q.grad.abs().max() + 1))
        for optimizer in optimizers:
            optimizer.step()
    # Running statistics and power iterations have moved once a step.
    for (where, b), c in zip(net.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(b, c, rtol=1e-7, atol=1e-7, msg=where)


@pytest.mark.parametrize("level", LEVELS)
def test_gradients_accumulate_over_micro_batches_and_are_clipped(level):
    net, plain = Net(), Net()
    balancer, reference = build("nash_mtl", level), Reference("nash_mtl", level)
    for shift in (0.0, 0.5):
        for model in (net, plain):
            model.x += shift
        (step(balancer, net, level) / 2).backward()
        reference.backward(plain)
    for p in plain.parameters():
        p.grad /= 2
    norms = [nn.utils.clip_grad_norm_(model.parameters(), 1e-2) for model in (net, plain)]
    assert norms[0] > 1e-2
    torch.testing.assert_close(*norms)
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize(("level", "name"), CASES)
def test_layers_frozen_and_unfrozen_between_steps(level, name):
    net, plain = Net(), Net()
    balancer, reference = build(name, level), Reference(name, level)
    for number, flag in enumerate((True, False, True)):
        for model in (net, plain):
            model.zero_grad()
            model.trunk[0].requires_grad_(flag)
        if name == "db_mtl" and level == "parameters" and number:
            # Its history belongs to the parameters that there were.
            with pytest.raises(IsonomyError, match="hold 35 numbers now and 65 before"):
                step(balancer, net, level)
            return
        step(balancer, net, level).backward()
        reference.backward(plain)
        assert (net.trunk[0].weight.grad is not None) == flag
        for p, q in zip(net.parameters(), plain.parameters(), strict=True):
            if q.grad is not None:
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("level", ["features", "parameters", "unnamed"])
def test_a_frozen_trunk_is_refused_with_the_way_out(level):
    net = Net()
    net.trunk.requires_grad_(False)
    balancer = build("imtl_g", level)
    (z,) = net.features()
    shared = {"features": z, "parameters": net.trunk, "unnamed": None}[level]
    match = "pass shared= to say where" if level == "unnamed" else "share nothing that learns"
    with pytest.raises(IsonomyError, match=match):
        balancer(net.losses([z]), shared=shared)


@pytest.mark.parametrize("where", ["trunk", "heads"])
@pytest.mark.parametrize("level", ["features", "parameters", "unnamed"])
def test_reentrant_checkpoints_work_below_a_feature_and_are_refused_elsewhere(level, where):
    nets = [Net(head=lambda: nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2))) for _ in range(2)]
    net = nets[0]
    x = net.x.clone().requires_grad_()  # As reentrant checkpoints ask for.
    z = checkpoint(net.trunk, x, use_reentrant=True) if where == "trunk" else net.trunk(x)
    heads = [checkpoint(head, z, use_reentrant=True) if where == "heads" else head(z) for head in net.heads]
    losses = [(out - y).square().mean() for out, y in zip(heads, net.y, strict=True)]
    shared = {"features": z, "parameters": net.trunk, "unnamed": None}[level]
    balancer = isonomy.build("imtl_g", 3)
    if (level, where) != ("features", "trunk"):
        with pytest.raises(IsonomyError, match=r"task '0', '1' and '2' .* use_reentrant=False"):
            balancer(losses, shared=shared)
        sum(losses).backward()  # The graph is as it was.
        return
    balancer(losses, shared=shared).backward()
    plain = nets[1]
    z = plain.trunk(plain.x)
    losses = [(head(z) - y).square().mean() for head, y in zip(plain.heads, plain.y, strict=True)]
    isonomy.build("imtl_g", 3)(losses, shared=z).backward()
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_a_feature_that_a_head_changes_in_place_is_refused_by_task():
    net = Net()
    z = net.trunk(net.x)
    outputs = [net.heads[0](z), net.heads[1](z), net.heads[2](z.relu_())]
    with pytest.raises(IsonomyError, match=r"task '0' and '1' does not reach shared=.*changed in place since"):
        isonomy.build("imtl_g", 3)([out.square().mean() for out in outputs], shared=z)


@pytest.mark.parametrize("give", [lambda m: m.trunk.parameters(), lambda m: (p for p in m.trunk.parameters())])
def test_shared_may_be_a_generator(give):
    found = []
    for shared in (give, lambda m: m.trunk):
        net = Net()
        step(build("nash_mtl", "parameters"), net, "parameters", shared=shared(net)).backward()
        found.append([p.grad for p in net.parameters()])
    for p, q in zip(*found, strict=True):
        assert p.equal(q)


@pytest.mark.parametrize(("level", "name"), CASES)
def test_without_gradients_the_value_is_the_sum_and_nothing_is_remembered(level, name):
    net, balancer = Net(), build(name, level)
    state = copy.deepcopy(balancer.state_dict())
    for off in (torch.no_grad(), torch.inference_mode()):
        with off:
            features = net.features()
            losses = net.losses(features)
            shared = features if level == "features" else net.trunk
            total = balancer(losses, shared=shared)
        torch.testing.assert_close(total, sum(losses), rtol=0, atol=0)
        assert not total.requires_grad
    losses = net.losses(net.features())
    balancer.eval()(losses).backward()
    balanced = [p.grad for p in net.parameters()]
    for p, q in zip(balanced, torch.autograd.grad(sum(net.losses(net.features())), net.parameters()), strict=True):
        torch.testing.assert_close(p, q)
    assert isonomy.testing.same_state(state, balancer.state_dict())


@pytest.mark.parametrize(("level", "name"), CASES)
def test_a_second_derivative_is_refused(level, name):
    net = Net()
    loss = step(build(name, level), net, level)
    with pytest.raises(IsonomyError, match="create_graph=True"):
        torch.autograd.grad(loss, net.trunk[0].weight, create_graph=True)
