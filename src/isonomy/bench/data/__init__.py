"""Data sets: what the bench needs to know of one, and the ones that are embedded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

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


class Problem(Protocol):
    """A data set with its tasks and protocol. The embedded ones are ``digits`` and ``toy``; another one is one file.

    Attributes:
        name: As on the command line.
        summary: One line for ``isonomy list data``.
        version: Goes up when a constant changes, because results are then no longer comparable.
        tasks: In the order in which everything prints them.
        architectures: Names of the networks that fit, the default first.
        levels: Where gradients can be measured, of ``"features"`` and ``"parameters"``.
        epochs: The default budget.
        learning_rate: Of Adam, in the first epoch.
        schedule: ``"constant"``, or ``"linear"``: it falls epoch by epoch towards 0, so that the last epoch's model,
            which is the one that counts, is not left to the noise of the last steps.
        trace_every: Steps between two calls of ``trace``; 0 for a problem that has none.
    """

    name: str
    summary: str
    version: int
    tasks: tuple[Task, ...]
    architectures: tuple[str, ...]
    levels: tuple[str, ...]
    epochs: int
    learning_rate: float
    schedule: str
    trace_every: int

    def network(self, architecture: str, tasks: Sequence[str], seed: int) -> nn.Module:
        """A fresh network, with a method ``shared_parameters()``; with ``between``, as ``HPS`` has, if with a feature.

        A part's initial weights depend on the seed and the part alone, so the single-task network of a task starts from
        the same encoder and head as the multi-task one.
        """

    def batches(self, seed: int, epoch: int, device: Any, split: str = "train") -> Iterator[Any]:
        """The batches of an epoch of ``"train"`` or ``"val"``, in an order of the seed's and the epoch's alone."""

    def losses(
        self, model: Callable[..., Any], batch: Any, tasks: Sequence[str]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """The tasks' losses on a batch, and the shared feature they all come from (None without one).

        The model is called and nothing else: it may be the network, or its forward at other parameters.
        """

    def evaluate(self, model: nn.Module, tasks: Sequence[str], split: str) -> dict[str, dict[str, float]]:
        """Value of every metric of every task on the ``"val"`` or ``"test"`` split."""

    def trace(self, model: nn.Module) -> list[float]:
        """What to record of the model every ``trace_every`` steps."""


NAMES = ("digits", "toy")


def load(name: str) -> Problem:
    """The data set of that name.

    Args:
        name: One of ``NAMES``.

    Raises:
        IsonomyError: There is none.
    """
    if name == "digits":
        from isonomy.bench.data.digits import Digits  # noqa: PLC0415 - scikit-learn takes a second to import

        return Digits()
    if name == "toy":
        from isonomy.bench.data.toy import Toy  # noqa: PLC0415

        return Toy()
    raise unknown("data set", name, NAMES)


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
