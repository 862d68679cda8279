"""What PAD-Net, MTI-Net and InvPT have in common."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call

import isonomy
from isonomy.bench.architectures.hps import HPS
from isonomy.bench.architectures.invpt import InvPT
from isonomy.bench.architectures.mti_net import MTINet
from isonomy.bench.architectures.pad_net import PADNet
from isonomy.errors import IsonomyError

from .dense import OUTPUTS, Grid, Pyramid, losses, reached, shake

SEED = 3
NETWORKS = {
    "pad_net": (partial(PADNet, Pyramid, width=8), Pyramid, (64, 96)),
    "mti_net": (partial(MTINet, Pyramid), Pyramid, (64, 96)),
    "invpt": (partial(InvPT, Grid, width=8), Grid, (128, 192)),
}


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


@pytest.fixture
def make(name):
    return NETWORKS[name][0]


@pytest.fixture
def x(name):
    return torch.rand(2, 3, *NETWORKS[name][2], generator=torch.Generator().manual_seed(0))


def some(tasks):
    return {task: OUTPUTS[task] for task in list(OUTPUTS)[:tasks]}


@pytest.mark.parametrize("tasks", [2, 3])
def test_shared_parameters_are_those_that_two_losses_reach_and_none_is_dead(make, x, tasks):
    net = make(some(tasks), SEED)
    sets = [reached(net, loss) for loss in losses(net(x), some(tasks)).values()]
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    shared = [names[id(parameter)] for parameter in net.shared_parameters()]
    assert len(shared) == len(set(shared))
    assert set(shared) == {name for name in names.values() if sum(name in each for each in sets) >= 2}
    assert set().union(*sets) == set(names.values())


def test_one_task_reaches_everything_and_would_share_the_encoder(make, x):
    net = make(some(1), SEED)
    assert reached(net, losses(net(x), some(1))["seg"]) == {name for name, _ in net.named_parameters()}
    assert list(map(id, net.shared_parameters())) == list(map(id, net.encoder.parameters()))


def test_the_backbone_alone_can_be_declared_shared(make):
    net = make(OUTPUTS, SEED, shared="backbone")
    assert list(map(id, net.shared_parameters())) == list(map(id, net.encoder.parameters()))


def test_the_last_layer_is_the_backbones(make):
    net = make(OUTPUTS, SEED)
    assert list(map(id, net.last_layer())) == list(map(id, net.encoder.last_layer()))


def test_every_task_has_a_prediction_of_its_channels_at_every_point_of_supervision(make, x):
    output = make(OUTPUTS, SEED)(x)
    for predictions in (output.predictions, *output.aux):
        assert {task: y.shape[1] for task, y in predictions.items()} == OUTPUTS
    for y in output.predictions.values():
        assert y.shape[-2:] == (x.shape[-2] // 4, x.shape[-1] // 4)
    assert output.penalty is None


def test_chosen_tasks_are_computed_alone(make, x):
    net = shake(make(OUTPUTS, SEED)).eval()
    called = []
    for task, head in net.heads.items():
        head.register_forward_hook(lambda *_, task=task: called.append(task))
    every = net(x)
    called.clear()
    chosen = net(x, tasks=["normal", "seg"])
    assert sorted(called) == ["normal", "seg"]
    for got, wanted in zip((chosen.predictions, *chosen.aux), (every.predictions, *every.aux), strict=True):
        assert set(got) == {"seg", "normal"}
        for task, y in got.items():
            torch.testing.assert_close(y, wanted[task], rtol=0, atol=0)
    with pytest.raises(IsonomyError, match="Unknown task 'norml': did you mean 'normal'"):
        net(x, tasks=["norml"])


def test_initial_weights_depend_on_the_seed_and_the_parts_name_alone(make, name):
    net = dict(make(OUTPUTS, SEED).named_parameters())
    torch.rand(7)
    again = dict(make(OUTPUTS, SEED).named_parameters())
    assert all(torch.equal(weight, again[key]) for key, weight in net.items())

    other = dict(make(dict(reversed(some(2).items())), SEED).named_parameters())
    joined = [key for key in other if ".attend." in key or ".common." in key or "norms." in key]
    for key in set(other) - set(joined):
        assert torch.equal(other[key], net[key]), key
    assert bool(joined) == (name != "pad_net")

    elsewhere = dict(make(OUTPUTS, SEED + 1).named_parameters())
    drawn = [key for key, weight in net.items() if weight.ndim > 1]
    assert not any(torch.equal(net[key], elsewhere[key]) for key in drawn)
    # No two parts share their numbers, whatever range they are scaled to.
    ratios = {round((net[key].flatten()[0] / net[key].flatten()[1]).item(), 5) for key in drawn}
    assert len(ratios) == len(drawn)


def test_the_encoder_starts_as_that_of_hard_parameter_sharing(make, name):
    hps = HPS(NETWORKS[name][1], {"seg": nn.Identity}, SEED)
    for mine, its in zip(make(OUTPUTS, SEED).encoder.parameters(), hps.encoder.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_other_parameters_can_be_called_with_and_a_state_restored(make, x):
    net, other = shake(make(OUTPUTS, SEED)).eval(), make(OUTPUTS, SEED + 1).eval()
    wanted = net(x)
    before = other(x)
    for got in (
        functional_call(other, dict(net.named_parameters()) | dict(net.named_buffers()), (x,)),
        (other.load_state_dict(net.state_dict()), other(x))[1],
    ):
        for task in OUTPUTS:
            torch.testing.assert_close(got.predictions[task], wanted.predictions[task], rtol=0, atol=0)
            assert not torch.allclose(before.predictions[task], wanted.predictions[task], atol=1e-3)


@pytest.mark.parametrize("level", ["features", "parameters"])
def test_a_gradient_balancer_weights_the_gradients_up_to_where_it_measures_them(make, x, level):
    net = make(OUTPUTS, SEED).double()
    output = net(x.double())
    tasks = losses(output, OUTPUTS)
    shared = list(net.shared_parameters()) if level == "parameters" else output.feature
    rows = torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)])
            for loss in tasks.values()
        ]
    )
    own = [
        torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, materialize_grads=True)
        for loss in tasks.values()
    ]

    balancer = isonomy.build("imtl_g", list(OUTPUTS))
    balancer(tasks, shared=shared).backward()
    weights = balancer.report.weights
    assert weights.std() > 1e-3
    units = rows / rows.norm(dim=1, keepdim=True)
    projections = units @ (weights @ rows)
    torch.testing.assert_close(projections, projections[:1].expand(3), rtol=1e-6, atol=0)
    torch.testing.assert_close(balancer.report.norms, rows.norm(dim=1), rtol=1e-6, atol=0)

    weighted = set(map(id, net.shared_parameters() if level == "parameters" else net.encoder.parameters()))
    for parameter, *gradients in zip(net.parameters(), *own, strict=True):
        factors = weights if id(parameter) in weighted else torch.ones(3)
        wanted = sum(w * g for w, g in zip(factors, gradients, strict=True))
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-6, atol=1e-12)


def test_a_loss_balancer_trains(make, x):
    net = make(OUTPUTS, SEED)
    balancer = isonomy.build("uw", list(OUTPUTS))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    totals = []
    for _ in range(6):
        tasks = losses(net(x), OUTPUTS)
        optimizer.zero_grad()
        balancer(tasks).backward()
        optimizer.step()
        totals.append(sum(tasks.values()).item())
    assert totals[-1] < 0.8 * totals[0]


def test_what_cannot_be_built_is_refused(name, make):
    encoder = NETWORKS[name][1]
    network = make.func
    with pytest.raises(IsonomyError, match="outputs= holds no task"):
        make({}, SEED)
    with pytest.raises(IsonomyError, match="outputs= gives 0 channels to the task 'depth'"):
        make({"seg": 2, "depth": 0}, SEED)
    with pytest.raises(IsonomyError, match="Unknown value of shared 'backbon': did you mean 'backbone'"):
        make(OUTPUTS, SEED, shared="backbon")
    with pytest.raises(IsonomyError, match="encoder= makes a Linear, which has no channels"):
        network(lambda: nn.Linear(3, 3), OUTPUTS, SEED)
    if name != "mti_net":
        with pytest.raises(IsonomyError, match="width=30 must be a multiple of"):
            network(encoder, OUTPUTS, SEED, width=30)
