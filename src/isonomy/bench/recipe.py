"""How a network is trained: budget, optimiser, learning rate, and which epoch's model counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any

from isonomy.bench.options import defaults_of, name_of, read
from isonomy.errors import IsonomyError, unknown

Values = Mapping[str, Mapping[str, float]]  # task -> metric -> value
OPTIMIZERS = ("adam", "adamw")
LAST, MEAN_LAST_10, BEST_VAL, BEST_TEST = "last", "mean_last_10", "best_val", "best_test"
SELECTIONS = (LAST, MEAN_LAST_10, BEST_VAL, BEST_TEST)


@dataclass(frozen=True)
class Recipe:
    """A training protocol.

    Attributes:
        epochs: The budget.
        learning_rate: In the first epoch.
        schedule: What becomes of it: a name of ``SCHEDULES``, with options if wanted: ``"step:every=100,factor=0.5"``.
        optimizer: ``"adam"`` or ``"adamw"``.
        weight_decay: Of the optimiser.
        clip: The largest norm of all gradients together; 0 leaves them as they are.
        select: Which model the test metrics are of: the ``"last"`` epoch's; the mean of the metrics of the last ten
            (``"mean_last_10"``); the one that is best on the validation split (``"best_val"``), or on the test split
            itself, as some papers do, which flatters (``"best_test"``).
    """

    epochs: int
    learning_rate: float
    schedule: str = "constant"
    optimizer: str = "adam"
    weight_decay: float = 0.0
    clip: float = 0.0
    select: str = LAST

    def changed(self, given: Mapping[str, Any]) -> Recipe:
        """The recipe with other ingredients.

        Args:
            given: Some of its attributes; others are left alone.

        Raises:
            IsonomyError: A value is out of range or unknown.
        """
        names = {field.name for field in fields(self)}
        return replace(self, **{name: value for name, value in given.items() if name in names})._checked()

    def _checked(self) -> Recipe:
        if self.epochs < 1:
            raise IsonomyError(f"--epochs is {self.epochs}: it must be at least 1.")
        if not 0 < self.learning_rate < inf:
            raise IsonomyError(f"--learning-rate is {self.learning_rate:g}: it must be positive.")
        for name in ("weight_decay", "clip"):
            if not 0 <= getattr(self, name) < inf:
                raise IsonomyError(f"--{name.replace('_', '-')} is {getattr(self, name):g}: it must be 0 or more.")
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.select not in SELECTIONS:
            raise unknown("selection", self.select, SELECTIONS)
        self.rate(0, ())
        return self

    def rate(self, epoch: int, improved: Sequence[bool]) -> float:
        """The learning rate in an epoch.

        Args:
            epoch: From 0.
            improved: Of each epoch before, whether it was the best so far on the validation split.

        Raises:
            IsonomyError: The schedule is unknown, or one of its options.
        """
        name = name_of(self.schedule)
        if name not in SCHEDULES:
            raise unknown("schedule", name, SCHEDULES)
        schedule = SCHEDULES[name]
        options = read(self.schedule, defaults_of(schedule), f"schedule {name}")
        return float(schedule(self.learning_rate, epoch, self.epochs, improved, **options))


def constant(start: float, epoch: int, epochs: int, improved: Sequence[bool]) -> float:
    """It stays."""
    return start


def linear(start: float, epoch: int, epochs: int, improved: Sequence[bool]) -> float:
    """It falls towards 0, so that the last epoch's model is not left to the noise of the last steps."""
    return start * (1 - epoch / epochs)


def poly(start: float, epoch: int, epochs: int, improved: Sequence[bool], power: float = 0.9) -> float:
    """It falls towards 0 along a power."""
    return float(start * (1 - epoch / epochs) ** power)


def step(
    start: float,
    epoch: int,
    epochs: int,
    improved: Sequence[bool],
    first: int = 0,
    every: int = 100,
    factor: float = 0.5,
) -> float:
    """It is multiplied by a factor every so many epochs, the first time ``every`` epochs after ``first``."""
    return float(start * factor ** (max(epoch - first, 0) // every))


def plateau(
    start: float,
    epoch: int,
    epochs: int,
    improved: Sequence[bool],
    factor: float = 0.7,
    patience: int = 5,
    least: float = 1e-5,
) -> float:
    """It is multiplied by a factor, down to the least rate, when more epochs than patience bring no improvement."""
    rate, waited = start, 0
    for better in improved:
        waited = 0 if better else waited + 1
        if waited > patience:
            rate, waited = max(rate * factor, least), 0
    return rate


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "linear": linear,
    "poly": poly,
    "step": step,
    "plateau": plateau,
}


def best(epochs: Sequence[Values], up: Mapping[str, Mapping[str, bool]]) -> int:
    """The epoch that is best, from 0: the last one that was better than the best before it.

    Args:
        epochs: The metrics of each, at least one.
        up: For each metric that counts, whether larger is better.
    """
    found = 0
    for epoch, values in enumerate(epochs):
        if gain(values, epochs[found], up) > 0:
            found = epoch
    return found


def gain(values: Values, best: Values, up: Mapping[str, Mapping[str, bool]]) -> float:
    """How much better an epoch is than the best one so far: mean over tasks of the mean over metrics of the change.

    The change of a metric is relative to the larger of both values, so it is defined when one of them is 0, as shares
    of an untrained network are, and swapping the epochs turns its sign.

    Args:
        values: Metrics of the epoch.
        best: Those of the best one.
        up: For each metric that counts, whether larger is better.
    """
    tasks = []
    for task, metrics in up.items():
        changes = [
            (1 if larger else -1) * _change(values[task][name], best[task][name]) for name, larger in metrics.items()
        ]
        tasks.append(sum(changes) / len(changes))
    return sum(tasks) / len(tasks)


def _change(new: float, old: float) -> float:
    largest = max(abs(new), abs(old))
    return (new - old) / largest if largest else 0.0
