"""``molecules``: eleven properties of small random molecules, as in QM9 on scales from 0.4 to 400.

Every property is a closed formula of atoms, bonds and distances (``chemistry``), so nothing is noise and a network of
a task's own can be very good: what sharing costs shows. Four of the eleven are nearly one quantity and pull together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from isonomy.bench.backbones import mpnn
from isonomy.bench.data import Task
from isonomy.bench.data.molecules import structures
from isonomy.bench.data.molecules.chemistry import CHARGE, TARGETS, properties
from isonomy.bench.data.molecules.regression import Batch, Regression, Scale
from isonomy.bench.data.molecules.structures import ELEMENTS, PADDING, Structures
from isonomy.bench.recipe import Recipe
from isonomy.errors import IsonomyError

UNITS = ("D", "a0³", "eV", "eV", "a0²", "eV", "eV", "eV", "eV", "eV", "cal/(mol K)")
BOND_TYPES = 4  # as in QM9: single, double, triple, aromatic, which these molecules have none of
# Of the message-passing network: the papers' has 64 and 128.
WIDTH, HIDDEN = 24, 16
# Made or judged at once, which bounds the memory.
BLOCK = 500


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
def scale(count: int) -> Scale:
    """Where the properties of so many training molecules lie.

    Args:
        count: How many.
    """
    return Scale.of(samples("train", count).targets)


@cache
def _scale_on(count: int, device: torch.device) -> Scale:
    return scale(count).to(device)


@dataclass
class Molecules(Regression):
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
    width: ClassVar[int] = WIDTH
    hidden: ClassVar[int] = HIDDEN
    judged_at_once: ClassVar[int] = BLOCK

    name: str = "molecules"
    summary: str = "random molecules: eleven properties, as in QM9, in closed form (embedded, a minute a run)"
    version: int = structures.VERSION
    tasks: tuple[Task, ...] = field(init=False)
    architectures: tuple[str, ...] = ("hps",)
    backbones: tuple[str, ...] = ()
    size: None = None
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    recipe: Recipe = Recipe(epochs=12, learning_rate=2e-3, schedule="linear")
    batch_size: int = 64
    train: int = 4_000
    val: int = 500
    test: int = 1_000
    normalise: bool = True

    def __post_init__(self) -> None:
        for split in ("train", "val", "test"):
            if self.count(split) < 2:
                raise IsonomyError(f"Option {split} of molecules is {self.count(split)}: it must be at least 2.")
        self.tasks = self.properties(UNITS)

    def count(self, split: str) -> int:
        """How many molecules a split has."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def scale(self) -> Scale:
        """Where the properties of the training molecules lie."""
        return scale(self.train)

    def units(self, device: Any) -> tuple[Tensor, Tensor]:
        """What a network's prediction of 0 stands for, and of one more; each of shape (11,)."""
        if self.normalise:
            found = _scale_on(self.train, torch.device(device))
            return found.mean, found.deviation
        return torch.zeros(len(TARGETS), device=device), torch.ones(len(TARGETS), device=device)

    def read(self, split: str, chosen: Tensor, device: torch.device) -> Batch:  # noqa: D102
        return _on(split, self.count(split), device).at(chosen.to(device))
