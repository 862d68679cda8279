"""``molecules``: eleven properties of small random molecules, as in QM9 on scales from 0.4 to 400.

Every property is a closed formula of atoms, bonds and distances (``chemistry``), so nothing is noise and a network of
a task's own can be very good: what sharing costs shows. Four of the eleven are nearly one quantity and pull together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.architectures import Design
from isonomy.bench.architectures.hps import HPS
from isonomy.bench.backbones import mpnn
from isonomy.bench.backbones.heads import LinearHead
from isonomy.bench.data import Losses, Metric, Task
from isonomy.bench.data.molecules import structures
from isonomy.bench.data.molecules.chemistry import CHARGE, TARGETS, properties
from isonomy.bench.data.molecules.structures import ELEMENTS, PADDING, Structures
from isonomy.bench.seeds import order
from isonomy.errors import IsonomyError

UNITS = ("D", "a0³", "eV", "eV", "a0²", "eV", "eV", "eV", "eV", "eV", "cal/(mol K)")
BOND_TYPES = 4  # as in QM9: single, double, triple, aromatic, which these molecules have none of
# Of the message-passing network: the papers' has 64 and 128.
WIDTH, HIDDEN = 24, 16
# Made or judged at once, which bounds the memory.
BLOCK = 500
CPU = torch.device("cpu")


class Batch(NamedTuple):
    """Molecules and their properties.

    Attributes:
        molecules: What the network sees, B molecules of at most 29 atoms.
        targets: In their units, shape (B, 11).
    """

    molecules: mpnn.Molecules
    targets: Tensor

    def at(self, chosen: Tensor | slice) -> Batch:
        """Some of them."""
        return Batch(mpnn.Molecules(*(tensor[chosen] for tensor in self.molecules)), self.targets[chosen])

    def to(self, device: Any) -> Batch:
        """The same on a device."""
        return Batch(mpnn.Molecules(*(tensor.to(device) for tensor in self.molecules)), self.targets.to(device))


class Scale(NamedTuple):
    """Where the properties of the training molecules lie, each of shape (11,).

    Attributes:
        mean: Of a property.
        deviation: Its standard deviation.
        spread: Its mean absolute deviation from the mean: the error of always answering the mean.
    """

    mean: Tensor
    deviation: Tensor
    spread: Tensor


def encoded(molecules: Structures) -> mpnn.Molecules:
    """What a network sees of molecules.

    An atom is its element (5), its atomic number, whether it is aromatic (never), whether its highest bond is a triple,
    double or single one (for hydrogen: none of them), and how many hydrogens it carries; a pair is its bond's type (4)
    and its distance.

    Args:
        molecules: M of them.
    """
    elements, orders, positions = molecules
    there = elements != PADDING
    kind = (elements[..., None] == np.arange(len(ELEMENTS))).astype(np.float32)
    hydrogen = kind[..., ELEMENTS.index("H")]
    highest = np.where(hydrogen > 0, 0, orders.max(2))
    columns = [
        *np.moveaxis(kind, 2, 0),
        np.where(there, CHARGE[elements], 0),
        np.zeros_like(hydrogen),
        *(highest == bonds for bonds in (3, 2, 1)),
        ((orders > 0) * hydrogen[:, None]).sum(2),
    ]
    bond = orders[..., None] == np.arange(1, BOND_TYPES + 1)
    pairs = there[:, :, None] & there[:, None, :]
    distance = np.where(pairs, np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1), 0)
    edges = np.concatenate([bond, distance[..., None]], axis=-1)
    return mpnn.Molecules(
        torch.from_numpy(np.stack(columns, axis=2).astype(np.float32)),
        torch.from_numpy(edges.astype(np.float32)),
        torch.from_numpy(there),
    )


@cache
def samples(split: str, count: int) -> Batch:
    """The first molecules of a split; each depends on its index alone.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        count: How many.
    """
    molecules, targets = [], []
    for first in range(0, count, BLOCK):
        made = structures.sample(split, first, min(BLOCK, count - first))
        molecules.append(encoded(made))
        targets.append(torch.from_numpy(properties(made)).float())
    return Batch(mpnn.Molecules(*map(torch.cat, zip(*molecules, strict=True))), torch.cat(targets))


@cache
def _on(split: str, count: int, device: torch.device) -> Batch:
    return samples(split, count).to(device)


@cache
def scale(count: int, device: torch.device = CPU) -> Scale:
    """Where the properties of so many training molecules lie.

    Args:
        count: How many.
        device: Where to have it.
    """
    targets = samples("train", count).targets.double()
    mean = targets.mean(0)
    found = (mean, targets.std(0, correction=0), (targets - mean).abs().mean(0))
    return Scale(*(tensor.float().to(device) for tensor in found))


def _explained(task: str, train: int, metrics: Mapping[str, float]) -> float:
    """The share of the error of always answering the training mean that is gone."""
    return min(max(1 - metrics["mae"] / float(scale(train).spread[TARGETS.index(task)]), 0.0), 1.0)


@dataclass
class Molecules:
    """Predict eleven properties of a molecule. See ``Problem`` for the members.

    Args:
        train: Number of training molecules.
        val: Number of validation molecules.
        test: Number of test molecules.
        normalise: Whether a network learns the properties in units of the training set's standard deviations; without,
            ``r2`` shouts a million times louder than the orbital energies.

    Raises:
        IsonomyError: A number of molecules is too small.
    """

    options: ClassVar[tuple[str, ...]] = ("train", "val", "test", "normalise")

    name: str = "molecules"
    summary: str = "random molecules: eleven properties, as in QM9, in closed form (embedded, a minute a run)"
    version: int = structures.VERSION
    tasks: tuple[Task, ...] = field(init=False)
    architectures: tuple[str, ...] = ("hps",)
    backbones: tuple[str, ...] = ()
    size: None = None
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    epochs: int = 12
    learning_rate: float = 2e-3
    schedule: str = "linear"
    batch_size: int = 64
    trace_every: int = 0
    train: int = 4_000
    val: int = 500
    test: int = 1_000
    normalise: bool = True

    def __post_init__(self) -> None:
        for split in ("train", "val", "test"):
            if self.count(split) < 2:
                raise IsonomyError(f"Option {split} of molecules is {self.count(split)}: it must be at least 2.")
        self.tasks = tuple(
            Task(target, (Metric("mae", up=False, unit=unit),), partial(_explained, target, self.train))
            for target, unit in zip(TARGETS, UNITS, strict=True)
        )

    def count(self, split: str) -> int:
        """How many molecules a split has."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def units(self, device: Any) -> tuple[Tensor, Tensor]:
        """What a network's prediction of 0 stands for, and of one more; each of shape (11,)."""
        if self.normalise:
            found = scale(self.train, torch.device(device))
            return found.mean, found.deviation
        return torch.zeros(len(TARGETS), device=device), torch.ones(len(TARGETS), device=device)

    def network(self, design: Design, tasks: Sequence[str], seed: int) -> nn.Module:  # noqa: D102
        return HPS(partial(mpnn.MPNN, WIDTH, HIDDEN), {task: partial(LinearHead, (WIDTH,), 1) for task in tasks}, seed)

    def batches(self, seed: int, epoch: int, device: Any, split: str = "train") -> Iterator[Batch]:  # noqa: D102
        data = _on(split, self.count(split), torch.device(device))
        chosen: Tensor
        for chosen in torch.split(order(self.count(split), seed, epoch).to(device), self.batch_size):
            yield data.at(chosen)

    def losses(self, model: Callable[..., Any], batch: Batch, tasks: Sequence[str]) -> Losses:  # noqa: D102
        output = model(batch.molecules)
        zero, one = self.units(batch.targets.device)
        wanted = dict(zip(TARGETS, ((batch.targets - zero) / one).T, strict=True))
        losses = {task: functional.mse_loss(output.predictions[task][:, 0], wanted[task]) for task in tasks}
        return Losses(losses, output.feature, output.penalty)

    def evaluate(self, model: nn.Module, tasks: Sequence[str], split: str) -> dict[str, dict[str, float]]:  # noqa: D102
        from isonomy.bench.metrics import MAE  # noqa: PLC0415 - seconds that only training has to spend

        device = next(model.parameters()).device
        data = _on(split, self.count(split), device)
        zero, one = self.units(device)
        errors = {task: MAE().to(device) for task in tasks}
        for first in range(0, self.count(split), BLOCK):
            batch = data.at(slice(first, first + BLOCK))
            with torch.inference_mode():
                predictions = model(batch.molecules).predictions
            for task, error in errors.items():
                column = TARGETS.index(task)
                error.update(predictions[task][:, 0] * one[column] + zero[column], batch.targets[:, column])
        return {task: {"mae": float(error.compute()["MAE"])} for task, error in errors.items()}

    def pictures(self, model: nn.Module, tasks: Sequence[str]) -> dict[str, NDArray[np.uint8]]:  # noqa: D102
        return {}

    def trace(self, model: nn.Module) -> list[float]:  # noqa: D102
        return []
