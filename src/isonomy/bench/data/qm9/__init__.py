"""``qm9``: eleven properties of 130,831 small molecules, from files that the user has.

Ramakrishnan et al., "Quantum chemistry structures and properties of 134 kilo molecules", Scientific Data 1, 2014, as
multi-task papers train on it: Navon et al., "Multi-task learning as a bargaining game", ICML 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor

from isonomy.bench.data import Task
from isonomy.bench.data.files import notes
from isonomy.bench.data.molecules.chemistry import TARGETS
from isonomy.bench.data.molecules.regression import Batch, Regression, Scale
from isonomy.bench.data.qm9 import source
from isonomy.bench.data.qm9.graphs import Batches, Graphs
from isonomy.bench.data.qm9.properties import UNITS, targets
from isonomy.bench.data.roots import Layout
from isonomy.bench.recipe import Recipe
from isonomy.errors import IsonomyError, unknown

# In the papers; another number of molecules is split in the same proportion.
MOLECULES = {"train": 110_831, "val": 10_000, "test": 10_000}
TRAIN, ALL = "train", "all"


@dataclass
class QM9(Regression):
    """Predict eleven properties of a molecule. See ``Problem`` for the members.

    Args:
        statistics: Of which molecules mean and standard deviation make the units that a network learns the properties
            in: ``"train"``, or ``"all"``, as public codes do, which lets a little of the test set be seen.
        perceive: Whether RDKit says which atoms and bonds are aromatic and how atoms are hybridised. In the files that
            papers use none of it is there: those columns are zeros, as they are without this option.
        batch_size: Molecules a step.

    Raises:
        IsonomyError: An option is out of range, or RDKit is needed and not there.
    """

    options: ClassVar[tuple[str, ...]] = ("statistics", "perceive", "batch_size")
    width: ClassVar[int] = 64
    hidden: ClassVar[int] = 128
    judged_at_once: ClassVar[int] = 256
    layout: ClassVar[Layout] = source.LAYOUT
    images: ClassVar[dict[str, int]] = MOLECULES

    name: str = "qm9"
    summary: str = "QM9: eleven properties of 130,831 molecules (your files)"
    version: int = 1
    tasks: tuple[Task, ...] = field(init=False)
    architectures: tuple[str, ...] = ("hps",)
    backbones: tuple[str, ...] = ()
    size: None = None
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    recipe: Recipe = Recipe(epochs=300, learning_rate=1e-3, schedule="plateau", weight_decay=1e-5, select="best_val")
    statistics: str = TRAIN
    perceive: bool = False
    batch_size: int = 128

    def __post_init__(self) -> None:
        if self.statistics not in (TRAIN, ALL):
            raise unknown("statistics of qm9", self.statistics, (TRAIN, ALL))
        if self.batch_size < 1:
            raise IsonomyError(f"Option batch_size of qm9 is {self.batch_size}: it must be at least 1.")
        if self.perceive and find_spec("rdkit") is None:
            raise IsonomyError("Option perceive of qm9 needs RDKit: pip install 'isonomy[chem]', or leave it out.")
        self.tasks = self.properties(UNITS)
        self._molecules: dict[torch.device, tuple[Batches, Tensor]] = {}
        self._scales: dict[torch.device, Scale] = {}

    @cached_property
    def graphs(self) -> Graphs:
        """All molecules."""
        return source.load(source.LAYOUT.root(), self.perceive)

    @cached_property
    def _split(self) -> tuple[dict[str, Tensor], str | None]:
        """Each split's positions among all molecules, and the file that they are from, if there is one."""
        count = len(self.graphs.atoms)
        if count < len(MOLECULES):
            raise source.LAYOUT.error(f"there are {count} molecules, and every split needs one")
        order, file = source.permutation(source.LAYOUT.root(), count)
        share = max(round(count * MOLECULES["test"] / sum(MOLECULES.values())), 1)
        test, val, train = torch.split(torch.from_numpy(order), [share, share, count - 2 * share])
        return {"train": train, "val": val, "test": test}, file

    @cached_property
    def _targets(self) -> Tensor:
        return torch.from_numpy(targets(self.graphs.values)).float()

    @property
    def samples(self) -> Mapping[str, Sequence[str]]:
        """The names of every split's molecules."""
        splits, _ = self._split
        return {split: [f"gdb_{n}" for n in self.graphs.numbers[chosen.numpy()]] for split, chosen in splits.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """In what the splits are not those of the papers."""
        splits, file = self._split
        other = notes("qm9", {split: len(chosen) for split, chosen in splits.items()}, MOLECULES)
        return (*other, f"Split of qm9 as in {file}.") if file else other

    def count(self, split: str) -> int:  # noqa: D102
        return len(self._split[0][split])

    @cached_property
    def _scale(self) -> Scale:
        found = Scale.of(self._targets if self.statistics == ALL else self._targets[self._split[0]["train"]])
        for name, deviation in zip(TARGETS, found.deviation.tolist(), strict=True):
            if not deviation:
                raise source.LAYOUT.error(f"property {name} is the same for all training molecules")
        return found

    def scale(self) -> Scale:
        """Where the properties lie of the molecules that ``statistics`` names."""
        return self._scale

    def units(self, device: Any) -> tuple[Tensor, Tensor]:  # noqa: D102
        device = torch.device(device)
        if device not in self._scales:
            self._scales[device] = self._scale.to(device)
        return self._scales[device].mean, self._scales[device].deviation

    def read(self, split: str, chosen: Tensor, device: torch.device) -> Batch:  # noqa: D102
        if device not in self._molecules:
            self._molecules[device] = (Batches(self.graphs, device), self._targets.to(device))
        batches, wanted = self._molecules[device]
        rows = self._split[0][split][chosen]
        return Batch(batches.at(rows), wanted[rows.to(device)])

    def example(self, split: str, index: int) -> dict[str, Tensor]:
        """A molecule, for people who look over the files: its atomic numbers, its bonds' lengths and its properties.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            index: Its position in the split.
        """
        (x, edges, _), properties = self.read(split, torch.tensor([index]), torch.device("cpu"))
        kinds, distance = edges[0, ..., :-1], edges[0, ..., -1]
        bonds = distance[kinds.any(-1).triu()]
        return {"atoms": x[0, :, 5], "bonds": bonds, **dict(zip(TARGETS, properties[0], strict=True))}
