"""What holds of every network, whatever it shares: it can be copied, saved, compiled and spread over processes."""

import copy
import pickle

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.bench.architectures.networks import KINDS, images, small
from tests.bench.architectures.test_decoders import NETWORKS, OUTPUTS
from tests.distributed.processes import run

SIZES = dict.fromkeys(KINDS, (32, 32)) | {name: size for name, (_, _, size) in NETWORKS.items()}
# Of the networks of one task those that are not hard parameter sharing's.
ALONE = ("mtan", "pad_net", "mti_net", "invpt")
# One of each kind of forward pass; the others take two minutes.
QUICK = {"hps", "cross_stitch", "mtan", "ltb"}

every = pytest.mark.parametrize("kind", SIZES)


def network(kind, tasks=3):
    made = NETWORKS[kind][0](dict(list(OUTPUTS.items())[:tasks]), 0) if kind in NETWORKS else small(kind, tasks)
    if hasattr(made, "begin"):
        made.begin(5, 10)
    return made


def batch(kind, seed=1, count=3):
    return images(seed, count, SIZES[kind])


def loss(output):
    terms = [y.float().square().mean() for each in (output.predictions, *output.aux) for y in each.values()]
    return sum(terms) if output.penalty is None else sum(terms) + output.penalty


def alike(mine, theirs, **tolerances):
    for task, prediction in theirs.predictions.items():
        torch.testing.assert_close(mine.predictions[task], prediction, **tolerances)


@every
def test_copies_and_pickles_are_the_network(kind):
    one = network(kind).eval()
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        alike(other(batch(kind)), one(batch(kind)), rtol=0, atol=0)
        assert not {id(p) for p in one.parameters()} & {id(p) for p in other.parameters()}


@every
def test_evaluation_judges_every_image_by_itself(kind):
    one, x = network(kind).eval(), batch(kind)
    together = one(x).predictions
    for i in range(len(x)):
        for task, prediction in one(x[i : i + 1]).predictions.items():
            torch.testing.assert_close(prediction[0], together[task][i], rtol=1e-4, atol=1e-5)


@every
def test_mixed_precision_reaches_every_parameter(kind):
    one = network(kind)
    with torch.autocast("cpu", torch.bfloat16):
        output = one(batch(kind))
    assert all(prediction.dtype == torch.bfloat16 for prediction in output.predictions.values())
    loss(output).backward()
    assert all(parameter.grad.isfinite().all() for parameter in one.parameters())


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in SIZES])
def test_it_compiles_as_one_graph(kind):
    torch._dynamo.reset()
    one, x = network(kind), batch(kind)
    compiled = torch.compile(copy.deepcopy(one), backend="eager", fullgraph=True)
    found = []
    for each in (one, compiled):
        torch.manual_seed(0)
        found.append(each(x))
    alike(found[1], found[0])


def worker(rank, world):
    found = {}
    for kind, tasks in [*((kind, 3) for kind in SIZES if " " not in kind), *((kind, 1) for kind in ALONE)]:
        module = network(kind, tasks).eval()  # so that a batch's samples do not depend on each other
        if kind == "ltb":
            module.train()
        model = DistributedDataParallel(module)
        for number in range(2):  # at the second step a parameter that was not reached in the first raises an error
            torch.manual_seed(100 * rank + number)  # processes draw other branches
            module.zero_grad()
            loss(model(batch(kind, number, world)[rank : rank + 1])).backward()
        found[kind, tasks] = {name: parameter.grad for name, parameter in module.named_parameters()}
    return found


def test_two_processes_get_the_mean_of_their_gradients(tmp_path):
    first, second = run(worker, 2, tmp_path)
    for (kind, tasks), gradients in first.items():
        module = network(kind, tasks).eval()
        mean = dict.fromkeys(gradients, 0)
        for rank in range(2):
            if kind == "ltb":
                module.train()
            module.zero_grad()
            torch.manual_seed(100 * rank + 1)
            loss(module(batch(kind, 1, 2)[rank : rank + 1])).backward()
            mean = {name: mean[name] + parameter.grad / 2 for name, parameter in module.named_parameters()}
        for name, gradient in gradients.items():
            assert torch.equal(gradient, second[kind, tasks][name]), (kind, name)
            torch.testing.assert_close(gradient, mean[name], rtol=1e-4, atol=1e-6, msg=f"{kind} {tasks} {name}")
