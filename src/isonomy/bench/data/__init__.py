"""Data sets: what the bench needs to know of one, and the ones that are embedded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from isonomy.bench.architectures import Design
from isonomy.bench.options import name_of, read
from isonomy.bench.recipe import Recipe
from isonomy.errors import IsonomyError, unknown


@dataclass(frozen=True)
class Metric:
    """How a task is judged.

    Attributes:
        name: As in ``results.csv``.
        up: Whether larger is better.
        unit: Printed after a value, such as ``"%"``; may be empty.
    """

    name: str
    up: bool
    unit: str = ""


@dataclass(frozen=True)
class Task:
    """One task of a data set.

    Attributes:
        name: Unique among the data set's tasks.
        metrics: At least one; the first is the one that figures show.
        score: Makes one number in [0, 1] of them, 1 for perfect, which methods that follow validation go by; None for a
            task that has no such number.
    """

    name: str
    metrics: tuple[Metric, ...]
    score: Callable[[Mapping[str, float]], float] | None = None


class Losses(NamedTuple):
    """What a network's output on a batch comes to.

    Attributes:
        losses: One a task, 0-d.
        feature: The shared feature, or the list of them, that all losses come from; None for a network without one.
        penalty: The network's own regulariser, 0-d, outside of any balance.
    """

    losses: dict[str, Tensor]
    feature: Tensor | list[Tensor] | None
    penalty: Tensor | None = None


class Problem(Protocol):
    """A data set with its tasks and protocol. Those of ``NAMES`` are embedded; another one is one file.

    Attributes:
        name: As on the command line, options included.
        summary: One line for ``isonomy list data``.
        version: Goes up when a constant changes, because results are then no longer comparable.
        tasks: In the order in which everything prints them.
        architectures: Names of the networks that fit, the default first.
        backbones: Names of the encoders that fit, the default first; empty for a data set that brings its own.
        size: Height and width of the images; None where no backbone has to know.
        levels: Where gradients can be measured, as far as the data set goes: of ``"features"``, ``"parameters"`` and
            ``"last_layer"``.
        recipe: How a network is trained, unless flags say otherwise.
        splits: Those there are, ``"train"`` the first and ``"test"`` the last; some data sets have none to validate on.
        samples: For each split the names of its samples, as far as they have names; looking raises an ``IsonomyError``
            where files are not there.
        notes: In what the data are not what papers have used, in sentences.
        trace_every: Steps between two calls of ``trace``; 0 for a problem that has none.
    """

    name: str
    summary: str
    version: int
    tasks: tuple[Task, ...]
    architectures: tuple[str, ...]
    backbones: tuple[str, ...]
    size: tuple[int, int] | None
    levels: tuple[str, ...]
    recipe: Recipe
    trace_every: int

    @property
    def splits(self) -> tuple[str, ...]:
        """See above."""

    @property
    def samples(self) -> Mapping[str, Sequence[str]]:
        """See above."""

    @property
    def notes(self) -> tuple[str, ...]:
        """See above."""

    def network(self, design: Design, tasks: Sequence[str], seed: int) -> nn.Module:
        """A fresh network, with methods ``shared_parameters()`` and, where that is a level, ``last_layer()``.

        A part's initial weights depend on the seed and the part alone, so the single-task network of a task starts from
        the same encoder and head as the multi-task one.
        """

    def batches(self, seed: int, epoch: int, device: Any, split: str = "train") -> Iterator[Any]:
        """The batches of an epoch of ``"train"`` or ``"val"``, in an order of the seed's and the epoch's alone."""

    def losses(self, model: Callable[..., Any], batch: Any, tasks: Sequence[str]) -> Losses:
        """The tasks' losses on a batch.

        The model is called and nothing else: it may be the network, or its forward at other parameters.
        """

    def evaluate(
        self, model: nn.Module, tasks: Sequence[str], split: str, thorough: bool = True
    ) -> dict[str, dict[str, float]]:
        """Value of every metric of every task on the ``"val"`` or ``"test"`` split.

        Where that takes minutes, a look that is not thorough may be coarser; one at ``"val"`` never is thorough.
        """

    def pictures(self, model: nn.Module, tasks: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
        """A few test images, ``"0-image"``, with their labels, ``"0-seg-truth"``, and predictions, ``"0-seg"``.

        RGB, (H, W, 3); none for data that nobody can look at.
        """

    def trace(self, model: nn.Module) -> list[float]:
        """What to record of the model every ``trace_every`` steps."""


class Embedded:
    """What data sets without files, and without pictures, have in common."""

    trace_every: int = 0

    @property
    def splits(self) -> tuple[str, ...]:
        """All three."""
        return ("train", "val", "test")

    @property
    def samples(self) -> Mapping[str, Sequence[str]]:
        """Without names."""
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """None."""
        return ()

    def pictures(self, model: nn.Module, tasks: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
        """None."""
        return {}

    def trace(self, model: nn.Module) -> list[float]:
        """Nothing."""
        return []


_PROBLEMS = {
    "digits": "digits:Digits",
    "toy": "toy:Toy",
    "rooms": "rooms.problem:Rooms",
    "molecules": "molecules:Molecules",
    "digit_domains": "digit_domains:DigitDomains",
    "nyuv2": "nyuv2:Nyuv2",
    "cityscapes2": "cityscapes2:Cityscapes2",
    "nyud4": "nyud4:Nyud4",
    "pascal5": "pascal5:Pascal5",
    "cityscapes3": "cityscapes3:Cityscapes3",
    "replica3": "replica3:Replica3",
    "office31": "office:Office31",
    "officehome": "office:OfficeHome",
    "qm9": "qm9:QM9",
    "celeba": "celeba:CelebA",
}
NAMES = tuple(_PROBLEMS)


def load(name: str) -> Problem:
    """The data set of that name.

    Args:
        name: One of ``NAMES``, with options after a colon if wanted: ``"rooms:size=96x128,train=960"``. A data set's
            ``options`` say which of its attributes can be set.

    Raises:
        IsonomyError: There is none, or an option is unknown or cannot be read.
    """
    base = name_of(name)
    if base not in _PROBLEMS:
        raise unknown("data set", base, NAMES)
    module, _, made = _PROBLEMS[base].partition(":")
    # Heavy libraries are imported by the data set that needs them.
    problem = getattr(import_module(f"isonomy.bench.data.{module}"), made)
    defaults = {option: getattr(problem, option) for option in getattr(problem, "options", ())}
    given = read(name, defaults, base)
    loaded: Problem = problem(**{**given, **({"name": name} if given else {})})
    return loaded


def select(problem: Problem, names: Sequence[str] | None) -> tuple[Task, ...]:
    """The tasks of these names, in the data set's order.

    Args:
        problem: The data set.
        names: Some of its tasks; None for all.

    Raises:
        IsonomyError: A name is unknown or given twice.
    """
    if names is None:
        return problem.tasks
    known = [task.name for task in problem.tasks]
    if not names:
        raise IsonomyError(f"--tasks is empty: name at least one of {', '.join(known)}.")
    for position, name in enumerate(names):
        if name not in known:
            raise unknown(f"task of {problem.name}", name, known)
        if name in names[:position]:
            raise IsonomyError(f"Task {name!r} is given twice; name each task once.")
    return tuple(task for task in problem.tasks if task.name in names)
