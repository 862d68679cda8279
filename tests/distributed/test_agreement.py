"""What is wrong on one process stops all of them, and none waits for another."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import isonomy
from tests.distributed.processes import message, run


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.ModuleList(nn.Linear(3, 5) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(2))

    def forward(self, x, expert=0):
        z = self.trunk[expert](x).tanh()
        return z, {name: head(z).square().mean() for name, head in zip("ab", self.heads, strict=True)}


def step(name, spoil, at="trunk", **options):
    """One step, with what ``spoil`` makes of the losses; the error, and whether a gradient came through."""
    net, balancer = Net(), isonomy.build(name, ["a", "b"], **options)
    z, losses = net(torch.ones(2, 3))
    shared = {"trunk": net.trunk[0], "feature": z, "nothing": None}[at]
    said = message(lambda: balancer(spoil(losses, z), shared=shared).backward())
    reached = any(p.grad is not None and bool(p.grad.any()) for p in net.parameters())
    return said, reached, balancer.steps


def nan(losses, z):
    return losses | {"b": losses["b"] * float("nan")}


def infinite_gradient(losses, z):
    return losses | {"b": (z - z.detach()).abs().sqrt().sum()}


def negative(losses, z):
    return losses | {"b": losses["b"] - 100}


def missing(losses, z):
    return {"a": losses["a"]}


def detached(losses, z):
    return losses | {"b": losses["b"].detach()}


def elsewhere(losses, z):
    return losses | {"b": torch.ones((), requires_grad=True) * 2}


def same(losses, z):
    return losses


ONE_IS_WRONG = {
    "a loss is NaN": (nan, "trunk", "The loss of task 'b' is not finite"),
    "a loss is NaN, at a feature": (nan, "feature", "The loss of task 'b' is not finite"),
    "a gradient is infinite": (infinite_gradient, "trunk", "The gradient of task 'b' is not finite"),
    "a gradient is infinite, at a feature": (infinite_gradient, "feature", "The gradient of task 'b' is not finite"),
}
ONE_REFUSES = {
    "a loss is missing": (missing, "trunk", "'b'"),
    "a loss is detached": (detached, "feature", "The loss of task 'b' needs no gradient"),
    "a loss does not reach the trunk": (elsewhere, "trunk", "The loss of task 'b' does not reach shared="),
    "a loss does not reach the feature": (elsewhere, "feature", "The loss of task 'b' does not reach shared="),
    "a loss meets no other": (elsewhere, "nothing", "'a' and 'b' shares no parameter"),
}


def other_experts(rank):
    net = Net()
    _, losses = net(torch.ones(2, 3), expert=rank % 2)
    return message(lambda: isonomy.build("imtl_g", ["a", "b"])(losses, shared=net.trunk))


def two_batches(one):
    """A step of a method that takes one batch or two, of two batches on one process alone."""
    net = Net()
    batches = [net(torch.ones(2, 3))[1] for _ in range(2)]
    return message(lambda: isonomy.build("modo", ["a", "b"])(batches if one else batches[0], shared=net.trunk))


def with_scaler(one):
    z, losses = Net()(torch.ones(2, 3))
    scaler = torch.amp.GradScaler("cpu") if one else None
    return message(lambda: isonomy.build("imtl_g", ["a", "b"])(losses, shared=z, grad_scaler=scaler))


def resumed(one):
    balancer = isonomy.build("imtl_g", ["a", "b"])
    if one:
        balancer.weights(torch.eye(2))
    z, losses = Net()(torch.ones(2, 3))
    return message(lambda: balancer(losses, shared=z))


def told_otherwise(one):
    balancer = isonomy.build("ew", ["a", "b"])
    balancer.epoch_end({"a": 0.5 if one else 0.6})
    return message(lambda: balancer(Net()(torch.ones(2, 3))[1]))


def told_alone(one):
    balancer = isonomy.build("dwa", ["a", "b"])
    if one:
        balancer.epoch_end()
    return message(lambda: balancer(Net()(torch.ones(2, 3))[1]))


def probed(one):
    net = Net()
    z, losses = net(torch.ones(2, 3))
    probe = net.trunk[1] if one else net.trunk[0]
    return message(lambda: isonomy.build("imtl_g", ["a", "b"])(losses, shared=z, probe=probe))


def other_operations(one):
    net = Net()
    z, _ = net(torch.ones(2, 3))
    losses = [head(z.relu() if one else z).mean() for head in net.heads]
    return message(lambda: isonomy.build("imtl_g", 2, memory="lean")(losses, shared=net.trunk[0]))


def other_lengths(one):
    net = Net()
    z, losses = net(torch.ones(2, 5 if one else 4, 3))
    return message(lambda: isonomy.build("imtl_g", ["a", "b"], feature_reduce="batch_sum")(losses, shared=z))


def missing_after_a_step(one):
    losses = {"a": torch.ones(())} if one else {"a": torch.ones(()), "b": torch.ones(())}
    return message(lambda: isonomy.build("famo", ["a", "b"], allow_missing=True).step_end(losses))


# What both processes say, the second one having done otherwise.
DIFFERENTLY = {
    two_batches: ("take different steps", "take different steps"),
    with_scaler: ("take different steps", "take different steps"),
    resumed: ("take different steps", "take different steps"),
    told_otherwise: ("epoch_end(metrics)", "epoch_end(metrics)"),
    told_alone: ("epoch_end(metrics)", "epoch_end(metrics)"),
    probed: ("Process 1 has raised", "does not reach probe="),
    other_operations: ("were computed by different operations", "were computed by different operations"),
    other_lengths: ("have other shapes on other processes", "have other shapes on other processes"),
    missing_after_a_step: ("Process 1 has raised", "2 processes train together"),
}


def static_graph():
    net = Net()
    model = DistributedDataParallel(net, static_graph=True)
    _, losses = model(torch.ones(2, 3))
    return message(lambda: isonomy.build("imtl_g", ["a", "b"])(losses, shared=net.trunk[0]))


def missing_task():
    _, losses = Net()(torch.ones(2, 3))
    return message(lambda: isonomy.build("ew", ["a", "b"], allow_missing=True)(missing(losses, None)))


def alone(rank):
    """Evaluation on one process, while the others go on."""
    if rank == 0:
        net, balancer = Net(), isonomy.build("imtl_g", ["a", "b"])
        z, losses = net(torch.ones(2, 3))
        with torch.no_grad():
            balancer(losses, shared=z)
        return (balancer.eval()(losses, shared=net.trunk[0]) - sum(losses.values())).item()
    return 0.0


def worker(rank, world):
    def on_last(spoil):
        return spoil if rank == world - 1 else same

    found = {"alone": alone(rank)}
    for title, (spoil, at, _) in (ONE_IS_WRONG | ONE_REFUSES).items():
        found[title] = step("imtl_g", on_last(spoil), at)
    for title, (spoil, at, _) in ONE_IS_WRONG.items():
        found[title, "skip"] = step("imtl_g", on_last(spoil), at, nonfinite="skip")
    found["outside the domain"] = step("log", on_last(negative))
    found["loss balancer"] = step("ew", on_last(detached))
    found["after all that"] = step("imtl_g", same)
    found["other experts"] = other_experts(rank)
    found["static graph"] = static_graph()
    found["missing task"] = missing_task()
    found["after a step"] = message(lambda: isonomy.build("famo", 2).step_end(torch.ones(3 if rank == 1 else 2)))
    return found | {way: way(rank == 1) for way in DIFFERENTLY}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run(worker, 2, tmp_path_factory.mktemp("agreement"))


@pytest.mark.parametrize("title", ONE_IS_WRONG)
def test_what_is_not_finite_on_one_process_raises_the_same_on_all(found, title):
    for said, reached, steps in (results[title] for results in found):
        assert said.startswith(ONE_IS_WRONG[title][2])
        assert (reached, steps) == (False, 0)


@pytest.mark.parametrize("title", ONE_IS_WRONG)
def test_all_processes_skip_together(found, title):
    for results in found:
        assert results[title, "skip"] == ("", False, 0)


def test_a_mean_loss_outside_the_domain_raises_the_same_on_all(found):
    said = [results["outside the domain"][0] for results in found]
    assert "The loss of task 'b' is -49.99" in said[0]
    assert said[0] == said[1]


@pytest.mark.parametrize("title", ONE_REFUSES)
def test_what_one_process_refuses_stops_the_others(found, title):
    first, last = (results[title] for results in found)
    assert ONE_REFUSES[title][2] in last[0]
    assert first[0] == "Process 1 has raised an error in this step, which says what is wrong."
    assert (first[1:], last[1:]) == ((False, 0), (False, 0))


def test_a_loss_balancer_too(found):
    assert found[0]["loss balancer"][0].startswith("Process 1")
    assert "needs no gradient" in found[1]["loss balancer"][0]


def test_losses_after_a_step_too(found):
    assert found[0]["after a step"].startswith("Process 1")
    assert "losses holds 3 losses for 2 tasks" in found[1]["after a step"]


def test_the_next_step_goes_on(found):
    for results in found:
        assert results["after all that"] == ("", True, 1)


def test_one_process_may_evaluate_alone(found):
    assert [results["alone"] for results in found] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("other experts", "reach different shared parameters"),
        ("static graph", "static_graph=True"),
        ("missing task", "2 processes train together"),
    ],
)
def test_what_would_come_out_wrong_is_refused(found, title, said):
    for results in found:
        assert said in results[title]


@pytest.mark.parametrize("way", DIFFERENTLY, ids=lambda way: way.__name__)
def test_a_process_that_does_otherwise_is_refused_on_all(found, way):
    for results, said in zip(found, DIFFERENTLY[way], strict=True):
        assert said in results[way]
