"""Who takes part in benchmarks/step.py: plain summing, the floor, Isonomy's levels and the peers, on one workload."""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from models import Workload
from torch import nn

import isonomy

METHODS = ("imtl_g", "nash_mtl", "upgrad", "db_mtl")
SIDES = ("features", "parameters", "lean")
REFERENCE = {"features": "sum", "parameters": "floor", "lean": "floor"}
Step = Callable[[], None]


@dataclass(frozen=True)
class Contestant:
    """A way to make a step.

    Attributes:
        side: What it is compared on, or the name of a reference.
        solver: Whose code it is, and its setting.
        method: The method; empty for a reference.
        step: Forward pass, losses and gradients.
        clear: Frees the gradients, between steps.
    """

    side: str
    solver: str
    method: str
    step: Step
    clear: Step

    @property
    def ours(self) -> bool:
        """Whether it is not a peer, whose failure would be an error."""
        return not self.solver.startswith(("TorchJD", "LibMTL"))


def references(work: Workload) -> dict[str, Contestant]:
    """Plain summing, and the backward passes that exact task gradients cannot do without."""
    shared = list(work.trunk.parameters())

    def plain() -> None:
        torch.stack(work.losses(work.trunk(work.x))).sum().backward()

    def floor() -> None:
        losses = work.losses(work.trunk(work.x))
        for task, (loss, head) in enumerate(zip(losses, work.heads, strict=True), 1):
            torch.autograd.grad(loss, [*head.parameters(), *shared], retain_graph=task < len(losses))

    return {name: Contestant(name, name, "", step, work.zero_grad) for name, step in (("sum", plain), ("floor", floor))}


def isonomy_sides(work: Workload, method: str, side: str) -> Iterator[Contestant]:
    """Isonomy at the feature, at the parameters as it chooses and with all rows held, and there with little memory."""
    settings: dict[str, dict[str, object]]
    if method == "db_mtl":  # It keeps a history of J, which at a feature, whose samples change, would mean nothing.
        settings = {"features": {"": {"beta": 0}}, "parameters": {"": {}}, "lean": {}}[side]
    elif side == "parameters" and method == "imtl_g":
        settings = {"": {}, " full": {"memory": "full"}}
    else:
        settings = {"": {"memory": "lean"} if side == "lean" else {}}
    for name, options in settings.items():
        balancer = isonomy.build(method, len(work.heads), **options)
        step = functools.partial(_step, work, balancer, side)
        yield Contestant(side, "Isonomy" + name, method, step, work.zero_grad)


def _step(work: Workload, balancer: isonomy.Balancer, side: str) -> None:
    z = work.trunk(work.x)
    balancer(work.losses(z), shared=z if side == "features" else work.trunk).backward()


def torchjd_sides(work: Workload, method: str, side: str) -> Iterator[Contestant]:
    """TorchJD: one task at a time or all in one batch, J joined or (frugal) summed over tensors, and without J."""
    autojac, aggregation = (importlib.import_module(f"torchjd.{name}") for name in ("autojac", "aggregation"))
    autogram = importlib.import_module("torchjd.autogram")
    tasks, heads = len(work.heads), [list(head.parameters()) for head in work.heads]
    makers = {"imtl_g": "IMTLG", "nash_mtl": "NashMTL", "upgrad": "UPGrad"}
    if method not in makers:
        return

    def aggregator() -> object:
        return getattr(aggregation, makers[method])(*([tasks] if method == "nash_mtl" else []))

    def at_features() -> Step:
        combine = aggregator()

        def step() -> None:
            z = work.trunk(work.x)
            leaf = z.detach().requires_grad_()
            losses = work.losses(leaf)
            autojac.mtl_backward(losses, features=leaf, tasks_params=heads, shared_params=[leaf])
            autojac.jac_to_grad([leaf], combine)
            z.backward(leaf.grad)

        return step

    def at_parameters(chunk: int | None, **options: bool) -> Step:
        combine, shared = aggregator(), list(work.trunk.parameters())

        def step() -> None:
            z = work.trunk(work.x)
            autojac.mtl_backward(
                work.losses(z), features=z, tasks_params=heads, shared_params=shared, parallel_chunk_size=chunk
            )
            autojac.jac_to_grad(shared, combine, **options)

        return step

    def entry(setting: str, step: Step) -> Contestant:
        return Contestant(side, f"TorchJD {setting}".strip(), method, step, work.zero_grad)

    def by_gramian() -> Contestant:
        # Its hooks stay on the modules, so it gets a network of its own.
        own, weighting = copy.deepcopy(work), getattr(aggregation, f"{makers[method]}Weighting")()
        engine = autogram.Engine(own.trunk, batch_dim=None)

        def step() -> None:
            losses = torch.stack(own.losses(own.trunk(own.x)))
            losses.backward(weighting(engine.compute_gramian(losses)))

        return Contestant(side, "TorchJD autogram", method, step, own.zero_grad)

    if side == "features":
        yield entry("", at_features())
    elif side == "parameters" and method == "nash_mtl":  # which takes J whole
        yield entry("sequential", at_parameters(1))
    elif side == "parameters":
        if method == "imtl_g":  # The other two settings cost as much whatever the method.
            yield entry("sequential", at_parameters(1))
            yield entry("batched", at_parameters(None))
        yield entry("frugal", at_parameters(1, optimize_gramian_computation=True))
    elif method != "nash_mtl":
        yield by_gramian()


@functools.cache
def libmtl_weighting() -> types.ModuleType:
    """LibMTL's methods without the rest of the package, which does not import beside today's torchvision."""
    spec = importlib.util.find_spec("LibMTL")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("No module named 'LibMTL'")
    package = sys.modules.setdefault("LibMTL", types.ModuleType("LibMTL"))
    package.__path__ = list(spec.submodule_search_locations)
    return importlib.import_module("LibMTL.weighting")


def libmtl_sides(work: Workload, method: str, side: str) -> Iterator[Contestant]:
    """LibMTL's IMTL, which trains scales of the losses besides."""
    base = libmtl_weighting().IMTL
    if method != "imtl_g" or side == "lean":
        return
    shared = list(work.trunk.parameters())

    class Method(base):  # type: ignore[misc, valid-type]
        def get_share_params(self) -> list[nn.Parameter]:
            return shared

        def zero_grad_share_params(self) -> None:
            for parameter in shared:
                if parameter.grad is not None:
                    parameter.grad.zero_()

    imtl = Method()
    imtl.task_num, imtl.task_name, imtl.device = len(work.heads), list(range(len(work.heads))), work.x.device
    imtl.rep_grad = side == "features"
    imtl.init_param()

    def step() -> None:
        imtl.zero_grad()
        z = work.trunk(work.x)
        if not imtl.rep_grad:
            imtl.backward(torch.stack(work.losses(z)))
            return
        leaves = [z.detach().clone().requires_grad_() for _ in imtl.task_name]
        imtl.rep, imtl.rep_tasks = z, dict(enumerate(leaves))
        imtl.backward(torch.stack(work.losses(leaves)))

    yield Contestant(side, "LibMTL (IMTL)", method, step, work.zero_grad)


PEERS = {"TorchJD": torchjd_sides, "LibMTL": libmtl_sides}


def contestants(work: Workload, methods: list[str], side: str, alone: bool) -> tuple[list[Contestant], dict[str, str]]:
    """All that take part on a side, and why a peer does not."""
    found = [entry for method in methods for entry in isonomy_sides(work, method, side)]
    missing = {}
    for name, make in ({} if alone else PEERS).items():
        try:
            found += [entry for method in methods for entry in make(work, method, side)]
        except ImportError as error:
            missing[name] = str(error)
    return found, missing
