from dataclasses import dataclass

import pytest
import torch
from torch import nn

import isonomy
from isonomy.bench.architectures import Design
from isonomy.bench.architectures.hps import HPS
from isonomy.bench.aside import Aside
from isonomy.gradient.rotograd import turn
from tests.bench.noise import Noise
from tests.bench.noise import trainer as dense_trainer
from tests.bench.tiny import Tiny, trainer
from tests.fixtures import close


@dataclass
class Noisy(Tiny):
    """``Tiny`` with a network that has running statistics and random masks."""

    def network(self, architecture, tasks, seed):
        def encoder():
            return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5))

        return HPS(encoder, {task: lambda: nn.Linear(8, 1) for task in tasks}, seed)


def batches(one, epoch=0):
    return [[x for x, _ in step] for step in one.begin(epoch)]


@pytest.mark.parametrize(("method", "count"), [("ew", 1), ("modo", 2), ("sdmgrad", 3), ("log+modo", 2)])
def test_a_step_brings_as_many_independent_batches_as_the_method_wants(method, count):
    one = trainer(method)
    steps = batches(one)
    assert len(steps) == 4
    assert all(len(step) == count for step in steps)
    samples = torch.cat([x for x, _ in one.problem.batches(0, 0, "cpu")])
    for position, column in enumerate(zip(*steps, strict=True)):
        seen = torch.cat(column)
        assert torch.equal(seen.sort(0).values, samples.sort(0).values)  # a whole epoch of the training set
        assert torch.equal(seen, samples) == (position == 0)  # in an order of its own but for the first
    if count > 2:
        assert not torch.equal(steps[0][1], steps[0][2])
    if count > 1:
        assert not torch.equal(batches(one, 1)[0][1], steps[0][1])


def test_the_gradient_of_several_batches_is_what_the_method_makes_of_them():
    one = trainer("modo")
    step = next(one.begin(0))
    losses = [one.problem.losses(one.network, batch, one.cell.tasks)[0] for batch in step]
    shared = one.shared_parameters()
    rows = [
        torch.stack(
            [torch.cat([g.flatten() for g in torch.autograd.grad(v, shared, retain_graph=True)]) for v in each.values()]
        )
        for each in losses
    ]
    close(one.step(step), torch.stack(list(losses[0].values())))
    weights = one.balancer.report.weights
    close(torch.cat([p.grad.flatten() for p in shared]), weights.float() @ (rows[0] + rows[1]) / 2, 1e-5)


def test_an_update_is_applied_as_it_is_to_the_shared_parameters_and_heads_have_adam():
    one = trainer("mtadam")
    sgd, adam = one.optimizers
    assert "momentum" in sgd.param_groups[0]
    assert "betas" in adam.param_groups[0]
    shared = one.shared_parameters()
    assert [id(p) for p in sgd.param_groups[0]["params"]] == [id(p) for p in shared]
    assert len(adam.param_groups[0]["params"]) == 6
    before = [p.detach().clone() for p in one.network.parameters()]
    one.step(next(one.begin(0)))
    for old, new in zip(before, shared, strict=False):
        close(new, old - 1e-2 * new.grad, 1e-6)
    for old, new in zip(before[len(shared) :], list(one.network.parameters())[len(shared) :], strict=True):
        close((old - new).abs(), torch.full_like(old, 1e-2), 1e-4)  # Adam's first step


def test_rotations_stand_between_the_feature_and_the_heads_in_training_and_evaluation():
    one = trainer("rotograd")
    (stage,) = one.balancer.stages
    assert stage.features == 8
    x, _ = next(one.begin(0))[0]
    z, straight, *_ = one.model(x)
    with torch.no_grad():
        stage.generators.normal_(generator=torch.Generator().manual_seed(0))
    rotations = torch.matrix_exp(stage.generators - stage.generators.mT)
    plain = trainer("ew")
    assert plain.network.between is None
    for train in (True, False):
        one.model.train(train)
        predictions = one.model(x).predictions
        for (task, head), rotation in zip(one.network.heads.items(), rotations, strict=True):
            close(predictions[task], head(turn(rotation, z)), 1e-5)
            assert not torch.allclose(predictions[task], straight[task], atol=1e-3)
    assert one.evaluate("val") != plain.evaluate("val")
    before = stage.generators.clone()
    one.step(next(one.begin(0)))
    assert not torch.equal(stage.generators, before)


def test_a_pass_beside_the_step_is_the_steps_own_and_leaves_no_trace():
    network = Noisy().network(Design("hps"), ["a"], 0)
    x = torch.randn(16, 4)
    torch.manual_seed(3)
    aside = Aside(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with aside.model({}) as model:
        first = model(x)[1]["a"]
    with aside.model({"heads.a.bias": torch.ones(1)}) as model:
        shifted = model(x)[1]["a"]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    own = network(x).predictions["a"]
    assert torch.equal(first, own)
    close(shifted, own - before["heads.a.bias"] + 1, 1e-6)
    assert not torch.equal(before["encoder.1.running_mean"], network.encoder[1].running_mean)
    assert not torch.equal(network(x).predictions["a"], own)  # the generator has moved on


def test_the_losses_after_a_step_see_the_same_masks_and_move_no_statistics(monkeypatch):
    heard = []
    monkeypatch.setattr(isonomy.Balancer, "step_end", lambda self, losses: heard.append(losses))
    # Steps too small to move a parameter.
    one, plain = (trainer(method, Noisy(), learning_rate=1e-30) for method in ("famo", "ew"))
    for each in (one, plain):
        torch.manual_seed(0)
        losses = each.step(next(each.begin(0)))
    assert len(heard) == 1
    assert not heard[0].requires_grad
    close(heard[0], losses)  # as the step has moved nothing
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(value, plain.network.state_dict()[name], rtol=1e-6, atol=1e-20, msg=name)


@pytest.mark.parametrize("method", ["auto_lambda", "moml", "url"])
def test_procedures_move_no_running_statistics_and_draw_no_random_numbers_of_the_steps(method):
    one, plain = trainer(method, Noisy()), trainer("ew", Noisy())
    for each in (one, plain):
        torch.manual_seed(0)
        each.step(next(each.begin(0)))
        each.drawn = torch.rand(1)
    assert one.drawn == plain.drawn
    for name, value in one.network.named_buffers():
        assert torch.equal(value, dict(plain.network.named_buffers())[name]), name


@pytest.mark.parametrize("method", ["ew", "imtl_g", "modo", "mtadam", "db_mtl"])
def test_a_penalty_is_added_to_the_balanced_loss_and_not_balanced(method, monkeypatch):
    found = Noise(images=4)
    flags = {"architecture": "dselect_k:experts=3", "backbone": "resnet_mini"}

    def gradients(penalised):
        one = dense_trainer(found, method, **flags)
        batches = next(one.begin(0))
        output = found.losses(one.network.train(), batches[0], one.cell.tasks)
        assert output.penalty > 0
        parameters = list(one.network.parameters())
        alone = torch.autograd.grad(output.penalty, parameters, materialize_grads=True)
        if not penalised:
            losses = found.losses
            monkeypatch.setattr(found, "losses", lambda *given: losses(*given)._replace(penalty=None))
        one.step(batches)
        return [p.grad for p in parameters], alone, one.balancer.report.weights

    more, alone, weights = gradients(True)
    less, _, without = gradients(False)
    assert sum(bool(g.any()) for g in alone) == 8  # the gates' layers that select
    for a, b, c in zip(more, less, alone, strict=True):
        close(a, b + c, 1e-4)
    if weights is not None:
        assert torch.equal(weights, without)
