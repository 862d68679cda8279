"""Small encoder-sharing networks of every kind, for the tests that all of them have to pass."""

from functools import partial

import torch

from isonomy.bench.architectures.cgc import CGC
from isonomy.bench.architectures.cross_stitch import CrossStitch
from isonomy.bench.architectures.dselect_k import DSelectK
from isonomy.bench.architectures.hps import HPS
from isonomy.bench.architectures.ltb import LTB
from isonomy.bench.architectures.mmoe import MMoE
from isonomy.bench.architectures.mtan import MTAN
from isonomy.bench.architectures.ple import PLE
from isonomy.bench.backbones.heads import ConvHead, make
from isonomy.bench.backbones.resnet import resnet18, resnet50, resnet_mini

TASKS = {"seg": 5, "depth": 1, "normal": 3}
CHANNELS = (8, 16, 32, 64)
LIBMTL = {"granularity": "scalar", "init": (1.0, 1.0), "after": (1, 2, 3)}

KINDS = {
    "hps": HPS,
    "cross_stitch": CrossStitch,
    "cross_stitch scalar": partial(CrossStitch, granularity="scalar"),
    "cross_stitch libmtl": partial(CrossStitch, **LIBMTL),
    "mtan": MTAN,
    "mtan libmtl": partial(MTAN, variant="libmtl"),
    "mmoe": MMoE,
    "mmoe image": partial(MMoE, experts=3, gate_input="image", image=(3, 32, 32)),
    "cgc": partial(CGC, shared_experts=2),
    "ple": PLE,
    "ple 2+2": partial(PLE, shared_experts=2, own_experts=2),
    "ple libmtl": partial(PLE, variant="libmtl"),
    "dselect_k": DSelectK,
    "dselect_k 3": partial(DSelectK, experts=3),
    "ltb": LTB,
}


def small(kind, tasks=3, seed=0, channels=CHANNELS, head=ConvHead, **options):
    """A network of that kind on the tiny ResNet."""
    names = list(TASKS.items())[:tasks] if isinstance(tasks, int) else [(task, TASKS[task]) for task in tasks]
    read = tuple(channels[index] for index in head.reads)
    heads = {task: partial(head, read, outputs) for task, outputs in names}
    return KINDS[kind](resnet_mini, heads, seed, **options)


def images(seed=1, count=3, size=(32, 32)):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def own_and_shared(network, output):
    """Names of the network's parameters by the tasks whose predictions depend on them."""
    by_tasks = {}
    names, parameters = zip(*network.named_parameters(), strict=True)
    reached = {name: [] for name in names}
    for task, prediction in output.predictions.items():
        found = torch.autograd.grad(prediction.square().sum(), parameters, retain_graph=True, allow_unused=True)
        for name, gradient in zip(names, found, strict=True):
            if gradient is not None:
                reached[name].append(task)
    for name, tasks in reached.items():
        by_tasks.setdefault(tuple(tasks), set()).add(name)
    return by_tasks


def declared(network):
    """Names of the parameters that the network says are shared."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = [names[id(parameter)] for parameter in network.shared_parameters()]
    assert len(found) == len(set(found))
    return set(found)


def large(network, outputs, *, deep=False, head="aspp", encoder=None, **options):
    """A network on a whole ResNet (or another encoder), without memory for its numbers."""
    with torch.device("meta"):
        backbone = encoder or (resnet50 if deep else resnet18)
        channels = backbone().channels
        heads = {task: partial(make, head, channels, count) for task, count in outputs.items()}
        return network(backbone, heads, 0, **options)


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


NYUV2 = {"seg": 13, "depth": 1, "normal": 3}
CITY = {"seg": 7, "depth": 1}
NYUD = {"semseg": 40, "depth": 1, "normals": 3, "edge": 1}
PASCAL = {"semseg": 21, "human_parts": 7, "sal": 1, "normals": 3, "edge": 1}
OFFICE = {"amazon": 31, "dslr": 31, "webcam": 31}
OFFICE_HOME = {"art": 65, "clipart": 65, "product": 65, "real": 65}
