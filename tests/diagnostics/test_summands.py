"""What a loop has added up is found again, with its names and weights, and measured without a trace."""

import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from isonomy.diagnostics import probe, summands
from isonomy.diagnostics.probe import last_shared_layer
from isonomy.errors import IsonomyError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6))
        self.heads = nn.ModuleDict({"seg": nn.Linear(6, 3), "depth": nn.Linear(6, 1), "edge": nn.Linear(6, 1)})
        self.log_scales = nn.Parameter(torch.tensor([0.3, -0.2, 0.1]))

    def losses(self):
        z = self.encoder(torch.randn(16, 4, generator=torch.Generator().manual_seed(1)))
        return {
            "seg": cross_entropy(self.heads["seg"](z), torch.arange(16) % 3),
            "depth": mse_loss(self.heads["depth"](z), torch.ones(16, 1)),
            "edge": (self.heads["edge"](z) - 2).abs().mean(),
        }


@pytest.fixture
def net():
    return Net()


def apart(total, **variables):
    """What is found in a sum by somebody who has these variables."""
    return summands.take_apart([total], [None], summands.named(Frame(variables)))


class Frame:
    def __init__(self, variables):
        self.f_locals = variables


def weights(found):
    return {each.name: pytest.approx(float(each.seed)) for each in found}


ADDED = {
    "a sum": lambda a, b: (a + b, 1, 1),
    "sum()": lambda a, b: (sum([a, b]), 1, 1),
    "weights": lambda a, b: (a + 0.5 * b, 1, 0.5),
    "weights on the right": lambda a, b: (a * 2 + b * torch.tensor(3.0), 2, 3),
    "alpha": lambda a, b: (torch.add(a, b, alpha=4), 1, 4),
    "a difference": lambda a, b: (a - 2 * b, 1, -2),
    "a difference's alpha": lambda a, b: (torch.sub(a, b, alpha=3), 1, -3),
    "from a number": lambda a, b: (1 - a + b, -1, 1),
    "a negative": lambda a, b: (-a + b, -1, 1),
    "a mean by hand": lambda a, b: ((a + b) / 2, 0.5, 0.5),
    "accumulation": lambda a, b: ((a + b) / torch.tensor(4.0), 0.25, 0.25),
    "a stack's sum": lambda a, b: (torch.stack([a, b]).sum(), 1, 1),
    "a stack's mean": lambda a, b: (torch.stack([a, b]).mean(0), 0.5, 0.5),
    "a stack's weights": lambda a, b: ((torch.stack([a, b]) * torch.tensor([2.0, 5.0])).sum(), 2, 5),
    "a stack's product": lambda a, b: (torch.stack([a, b]) @ torch.tensor([2.0, 5.0]), 2, 5),
    "a matrix's product": lambda a, b: ((torch.tensor([[2.0, 5.0]]) @ torch.stack([a, b])).squeeze(), 2, 5),
    "entries": lambda a, b: (torch.stack([a, b])[0] + 3 * torch.stack([a, b])[1], 1, 3),
    "unbound": lambda a, b: (sum(torch.stack([a, 3 * b]).unbind()), 1, 3),
    "a cat": lambda a, b: (torch.cat([a.view(1), b.view(1)]).sum(), 1, 1),
    "float64": lambda a, b: (a.double() + 2 * b.double(), 1, 2),
    "half": lambda a, b: (a + 2 * b.half(), 1, 2),
    "in place": lambda a, b: (torch.zeros(()).add_(a).add_(b, alpha=2).mul_(3), 3, 6),
    "twice": lambda a, b: (a + b + 0.1 * (a + b) + b, 1.1, 2.1),
    "broadcast": lambda a, b: ((a + b.view(1, 1)).sum(), 1, 1),
    "a choice": lambda a, b: (torch.where(torch.tensor(True), a, b) + b, 1, 1),
    "a clone": lambda a, b: (a.clone() + b.squeeze(), 1, 1),
}


@pytest.mark.parametrize("form", ADDED)
def test_every_way_of_adding_up_is_taken_apart(form, net):
    losses = net.losses()
    a, b = losses["seg"], losses["depth"]
    total, first, second = ADDED[form](a, b)
    found = apart(total, seg=a, depth=b)
    assert weights(found) == {"seg": first, "depth": second}
    assert [each.value for each in found] == [a, b]
    at = [*net.encoder.parameters()]
    parts = [torch.autograd.grad(each.value, at, each.seed, retain_graph=True) for each in found]
    whole = torch.autograd.grad(total, at)
    for one, other, both in zip(*parts, whole, strict=True):
        torch.testing.assert_close(one + other, both, rtol=1e-3 if form == "half" else 1e-5, atol=1e-6)


def test_learned_weights_are_weights_and_no_losses(net):
    losses = net.losses()
    scales = net.log_scales
    total = sum(torch.exp(-scales[i]) * loss + scales[i] for i, loss in enumerate(losses.values()))
    expected = dict(zip(losses, torch.exp(-scales).tolist(), strict=True))
    assert weights(apart(total, losses=losses)) == pytest.approx(expected)


def test_a_logarithm_is_a_weight_where_the_loss_has_a_name(net):
    losses = net.losses()
    total = sum(loss.log() for loss in losses.values())
    assert weights(apart(total, losses=losses)) == {name: 1 / loss.item() for name, loss in losses.items()}
    assert weights(apart(total)) == {"loss 1": 1, "loss 2": 1, "loss 3": 1}


def test_penalties_are_left_out(net):
    losses = net.losses()
    decay = sum(parameter.square().sum() for parameter in net.parameters())
    both = {"seg": 1, "depth": 1}
    total = losses["seg"] + losses["depth"]
    assert weights(apart(total + 1e-3 * decay, **losses)) == both
    assert weights(apart(total + 1e-3 * decay, decay=decay, **losses)) == both
    assert weights(apart(total + 1e-3 * decay, decay=decay, tasks=total, **losses)) == both
    # What has a name and is all there is has to be taken apart.
    assert weights(apart(total + 1e-3 * decay, decay=decay, tasks=total)) == {"loss 1": 1, "loss 2": 1}
    assert weights(apart(total + net.heads["edge"].weight.abs().sum(), **losses)) == both


def test_many_penalties_do_not_reach_pythons_depth(net):
    losses = net.losses()
    decay = sum(net.heads["edge"].bias.square().sum() for _ in range(2000))
    assert weights(apart(losses["seg"] + losses["depth"] + decay, **losses)) == {"seg": 1, "depth": 1}


def test_losses_of_one_parameter_alone_are_losses():
    theta = torch.ones(2, requires_grad=True)
    first, second = (theta - 1).square().sum(), (theta + 1).square().sum()
    assert weights(apart(first + second, first=first, second=second)) == {"first": 1, "second": 1}


def test_what_shares_nothing_is_left_out(net):
    losses = net.losses()
    other = nn.Linear(2, 1)(torch.ones(3, 2)).square().mean()
    assert weights(apart(sum(losses.values()) + other, losses=losses, other=other)) == dict.fromkeys(losses, 1)


def test_one_loss_is_one(net):
    loss = net.losses()["seg"]
    assert [each.name for each in apart(0.5 * loss, loss=loss)] == ["loss"]
    assert [each.name for each in apart(loss)] == ["loss 1"]


def test_a_named_sum_is_a_loss_and_taken_apart_only_if_all_its_parts_have_names(net):
    seg, depth, edge = net.losses().values()
    dense = depth + 2 * edge
    assert weights(apart(seg + dense, seg=seg, dense=dense)) == {"seg": 1, "dense": 1}
    assert weights(apart(seg + dense, seg=seg, dense=dense, depth=depth)) == {"seg": 1, "dense": 1}
    named = {"seg": seg, "dense": dense, "depth": depth, "edge": edge}
    assert weights(apart(seg + 3 * dense, **named)) == {"seg": 1, "depth": 3, "edge": 6}


def test_several_roots_are_one_sum(net):
    losses = net.losses()
    roots, seeds = [losses["seg"], losses["depth"]], [None, torch.tensor(2.0)]
    found = summands.take_apart(roots, seeds, summands.named(Frame(losses)))
    assert weights(found) == {"seg": 1, "depth": 2}


def test_names_come_from_where_most_of_them_are(net):
    seg, depth, edge = net.losses().values()
    total = seg + depth + edge

    def names(**variables):
        return [each.name for each in apart(total, **variables)]

    assert names(loss_seg=seg, depth_loss=depth, edgeLoss=edge) == ["seg", "depth", "edge"]
    assert names(losses={"seg_loss": seg, "depth": depth, 3: edge}) == ["seg", "depth", "3"]
    # A loop's variable has kept the last loss.
    assert names(losses=[seg, depth, edge], each=edge) == ["losses[0]", "losses[1]", "losses[2]"]
    assert names(losses={"a": seg, "b": depth, "c": edge}, each=edge) == ["a", "b", "c"]
    assert names(losses=[seg, depth, edge], a=seg, b=depth, c=edge) == ["a", "b", "c"]
    assert names(depth=depth) == ["loss 1", "depth", "loss 3"]
    assert names(loss_1=seg, loss_2=depth, loss=edge) == ["loss_1", "loss_2", "loss"]
    assert names(loss_seg=seg, seg_loss=depth, SEG_LOSS=edge) == ["seg", "seg_loss", "SEG"]


def test_names_of_a_running_frame(net):
    def loop():
        losses = net.losses()
        first, (second, third) = losses["seg"], (losses["depth"], losses["edge"])
        del losses
        total = first + second + third
        return [each.name for each in summands.take_apart([total], [None], summands.named(sys._getframe()))]

    assert loop() == ["first", "second", "third"]


def test_a_look_is_what_probe_measures_and_leaves_nothing(net):
    losses = net.losses()
    total = losses["seg"] + 0.5 * losses["depth"] + losses["edge"]
    found = apart(total, **losses)
    at, place = summands.meeting_place(found)
    assert place == "the last shared layer"
    assert [*map(id, at)] == [*map(id, last_shared_layer([*losses.values()]))]
    assert {*map(id, at)} == {*map(id, net.encoder[2].parameters())}
    seen = summands.look(found, at)
    report = probe(net, losses, shared=at)
    assert seen["losses"] == pytest.approx(report.losses.tolist())
    assert seen["loss_weights"] == [1.0, 0.5, 1.0]
    assert seen["norms"] == pytest.approx((report.norms * torch.tensor([1.0, 0.5, 1.0])).tolist())
    torch.testing.assert_close(torch.tensor(seen["cosines"]).double(), report.cosines, rtol=1e-6, atol=1e-6)
    assert all(parameter.grad is None for parameter in net.parameters())
    scaled = summands.look(apart(1024.0 * total, **losses), at, 1024.0)
    assert scaled["norms"] == pytest.approx(seen["norms"])
    assert scaled["loss_weights"] == seen["loss_weights"]
    total.backward()


def test_a_look_shows_nothing_to_hooks_and_retained_gradients(net):
    calls, gradients = [], []
    for parameter in net.parameters():
        parameter.register_hook(calls.append)
        parameter.register_post_accumulate_grad_hook(calls.append)
    z = net.encoder(torch.ones(2, 4))
    z.retain_grad()
    z.register_hook(gradients.append)
    losses = {name: head(z).square().mean() for name, head in net.heads.items()}
    total = sum(losses.values())
    for tensor in (total, *losses.values()):
        tensor.register_hook(calls.append)
    sources = summands.named(Frame({"losses": losses, "z": z, "loss": total}))
    found = summands.take_apart([total], [None], sources)
    summands.look(found, [*net.encoder.parameters()], 1.0, [each for source in sources for _, each in source.values()])
    assert calls == gradients == []
    assert z.grad is None
    total.backward()
    assert len(calls) == len(losses) + 1 + 2 * 10
    assert len(gradients) == 1
    torch.testing.assert_close(z.grad, gradients[0])


def test_where_losses_meet_in_pairs_all_that_two_share_counts():
    torch.manual_seed(0)
    first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    x = torch.randn(5, 2)
    a, b = first(x).square().mean(), second(x).square().mean()
    c = (first(x) + second(x)).abs().mean()
    at, place = summands.meeting_place(apart(a + b + c))
    assert place == "the shared parameters"
    assert {*map(id, at)} == {id(leaf) for layer in (first, second) for leaf in layer.parameters()}
    alone = apart(a + b)
    assert len(alone) == 2
    assert summands.meeting_place(alone)[0] == []


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("not with .grad()")


def test_what_refuses_single_passes_is_named(net):
    z = Once.apply(net.encoder(torch.randn(4, 4)))
    found = apart(net.heads["edge"](z).mean() + net.heads["depth"](z).square().mean())
    with pytest.raises(IsonomyError, match=r"cannot be taken one by one in this script: not with .grad\(\)"):
        summands.look(found, [*net.encoder.parameters()])
