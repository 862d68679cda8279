"""What holds of every network that shares an encoder."""

import pytest
import torch

import isonomy
from isonomy.bench.backbones.heads import HRNetHead
from isonomy.errors import IsonomyError
from tests.bench.architectures.networks import KINDS, TASKS, count, declared, images, own_and_shared, small

every = pytest.mark.parametrize("kind", KINDS)


@every
@pytest.mark.parametrize("tasks", [2, 3])
def test_shared_is_what_two_or_more_tasks_reach_and_nothing_is_dead(kind, tasks):
    network = small(kind, tasks)
    if kind == "ltb":
        network.begin(5, 10)
    found = own_and_shared(network, network(images()))
    assert () not in found
    assert declared(network) == set().union(*(names for by, names in found.items() if len(by) > 1))
    for task in list(TASKS)[:tasks]:
        assert any(name.startswith(f"heads.{task}.") for name in found[(task,)])


@every
def test_every_parameter_gets_a_gradient_that_is_not_zero(kind):
    network = small(kind)
    if kind == "ltb":
        network.temperature.fill_(1.0)
        # Near enough to uniform that in some of the draws every encoder's stage is read.
    for draw in range(20 if kind == "ltb" else 1):
        torch.manual_seed(draw)
        output = network(images())
        sum(prediction.square().sum() for prediction in output.predictions.values()).backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0] == []


@every
def test_a_single_task_has_the_plain_network(kind):
    network, plain = small(kind, 1), small("hps", 1)
    output = network(images())
    assert list(output.predictions) == ["seg"]
    assert output.predictions["seg"].shape == (3, 5, 4, 4)
    assert output.penalty is None
    own = {name for name, _ in network.named_parameters() if name.startswith(("heads.", "masks."))}
    assert declared(network) == {name for name, _ in network.named_parameters()} - own
    assert own_and_shared(network, output) == {("seg",): {name for name, _ in network.named_parameters()}}
    if not kind.startswith("mtan"):
        assert count(network.parameters()) == count(plain.parameters())


@every
@pytest.mark.parametrize("tasks", [1, 3])
def test_last_layer_is_shared_and_wide(kind, tasks):
    network = small(kind, tasks)
    shared = {id(parameter) for parameter in network.shared_parameters()}
    last = network.last_layer()
    assert last
    assert all(id(parameter) in shared for parameter in last)
    assert all(parameter.ndim == 4 for parameter in last)
    stage = 3 if kind in {"ltb", "cross_stitch libmtl"} and tasks > 1 else 4
    assert all(parameter.shape[0] == (8, 16, 32, 64)[stage - 1] for parameter in last)
    assert all(parameter.shape[2] == 3 for parameter in last)


@every
def test_a_task_alone_runs_what_it_needs_only(kind):
    network = small(kind)
    if kind == "ltb":
        network.begin(5, 10)
    torch.manual_seed(0)
    whole = network(images())
    by_tasks = own_and_shared(network, whole)
    called = set()
    for name, module in network.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(lambda *_, name=name: called.add(name))
    torch.manual_seed(0)
    output = network(images(), tasks=["depth"])
    assert list(output.predictions) == ["depth"]
    assert (output.feature is None) == (kind != "hps")
    torch.testing.assert_close(output.predictions["depth"], whole.predictions["depth"], rtol=0, atol=0)
    needed = set().union(*(names for by, names in by_tasks.items() if "depth" in by))
    owners = {name.rpartition(".")[0] for name in needed}
    # The cross-stitch units and the choices are parameters outside of any called module.
    assert called == {owner for owner in owners if owner not in {"columns", "units", "choices"}}
    output.predictions["depth"].sum().backward()
    assert {name for name, parameter in network.named_parameters() if parameter.grad is not None} == needed


@every
def test_tasks_come_in_the_networks_order_and_have_to_be_its_own(kind):
    network = small(kind)
    assert list(network(images(), tasks=["normal", "seg"]).predictions) == ["seg", "normal"]
    with pytest.raises(IsonomyError, match="Unknown task 'depht': did you mean 'depth'"):
        network(images(), tasks=["depht"])
    with pytest.raises(IsonomyError, match="heads= is empty"):
        small(kind, 0)


@every
def test_initial_weights_depend_on_the_seed_and_the_part_alone(kind):
    torch.manual_seed(7)
    first, second = small(kind).state_dict(), small(kind).state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    other = small(kind, seed=1).state_dict()
    weights = [name for name in first if first[name].ndim > 1 and not name.startswith(("units", "choices"))]
    assert not any(torch.equal(first[name], other[name]) for name in weights)
    drawn = [first[name].flatten()[:5] for name in weights]
    assert len({tuple(value.tolist()) for value in drawn}) == len(drawn)
    for tasks in (("depth",), ("normal", "seg")):
        fewer = small(kind, tasks).state_dict()
        alike = [name for name in fewer if name in first and fewer[name].shape == first[name].shape]
        assert any(name.startswith(f"heads.{tasks[0]}.") for name in alike)
        for name in alike:
            assert torch.equal(fewer[name], first[name]), name
        # What is left out are weights between pairs of tasks.
        left = {name.split(".")[0] for name in fewer} - {name.split(".")[0] for name in alike}
        assert left <= {"units", "choices", "shared_gates"}


@every
def test_a_call_with_other_parameters_and_a_saved_state(kind):
    network, other = small(kind).eval(), small(kind, seed=1).eval()
    if kind == "ltb":
        network.begin(5, 10)
    x = images()
    expected = network(x).predictions
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    assert not torch.equal(other(x).predictions["seg"], expected["seg"])
    called = torch.func.functional_call(other, state, (x,)).predictions
    other.load_state_dict(state)
    loaded = other(x).predictions
    for task, prediction in expected.items():
        assert torch.equal(called[task], prediction)
        assert torch.equal(loaded[task], prediction)


@every
def test_heads_may_read_several_maps(kind):
    network = small(kind, channels=(8, 16, 32, 64), head=HRNetHead)
    output = network(images())
    assert output.predictions["seg"].shape == (3, 5, 8, 8)
    found = own_and_shared(network, output)
    assert () not in found
    assert declared(network) == set().union(*(names for by, names in found.items() if len(by) > 1))


@every
@pytest.mark.parametrize("method", ["log", "imtl_g"])
def test_a_balanced_step_equals_brute_force(kind, method):
    network = small(kind, 2).double()
    if kind == "ltb":
        network.begin(5, 10)

    def losses():
        torch.manual_seed(3)
        output = network(images().double())
        return {
            task: scale * (prediction - 1).square().mean()
            for scale, (task, prediction) in zip((1.0, 50.0), output.predictions.items(), strict=True)
        }

    names, parameters = zip(*network.named_parameters(), strict=True)
    found = [torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True) for loss in losses().values()]
    rows = [dict(zip(names, gradients, strict=True)) for gradients in found]
    values = [loss.detach() for loss in losses().values()]
    shared = declared(network)
    if method == "log":
        weights = [1 / value for value in values]
        own = weights
    else:
        flat = [torch.cat([row[name].flatten() for name in names if name in shared]) for row in rows]
        units = [row / row.norm() for row in flat]
        # a g_1 + (1 - a) g_2 has the same projection on both unit gradients.
        difference = units[0] - units[1]
        a = -(flat[1] @ difference) / ((flat[0] - flat[1]) @ difference)
        weights, own = [a, 1 - a], [1.0, 1.0]

    options = {"eps": 0.0} if method == "log" else {}
    balancer = isonomy.build(method, tasks=list(TASKS)[:2], **options)
    balancer(losses(), shared=list(network.shared_parameters())).backward()
    for name, parameter in network.named_parameters():
        factors = weights if name in shared else own
        expected = sum(factor * row[name] for factor, row in zip(factors, rows, strict=True) if row[name] is not None)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-8, atol=1e-10)
