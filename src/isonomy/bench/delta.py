"""The overall score: Δp, the mean relative improvement over single-task training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf
from statistics import fmean, mean, stdev

from isonomy.errors import IsonomyError, unknown

Values = Mapping[str, Mapping[str, float]]  # task -> metric -> value


@dataclass(frozen=True)
class Spread:
    """A mean over seeds.

    Attributes:
        mean: Of the seeds' values.
        std: Sample standard deviation (n - 1); None for a single seed.
        count: Number of seeds.
    """

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The mean and deviation of at least one value."""
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values))


def average(runs: Sequence[Values]) -> dict[str, dict[str, float]]:
    """Metric by metric, the mean over runs.

    Args:
        runs: At least one, all with the same tasks and metrics.
    """
    return {task: {name: mean(run[task][name] for run in runs) for name in runs[0][task]} for task in runs[0]}


def task_deltas(values: Values, baseline: Values, up: Mapping[str, Mapping[str, bool]]) -> dict[str, float]:
    """Relative improvement of every task in percent, the mean over its metrics.

    Args:
        values: Of a run.
        baseline: Of single-task training.
        up: For each metric, whether larger is better.

    Raises:
        IsonomyError: A baseline value is not positive, so nothing can be relative to it.
    """
    return {task: fmean(changes) for task, changes in _changes(values, baseline, up).items()}


def delta_p(values: Values, baseline: Values, up: Mapping[str, Mapping[str, bool]], aggregate: str = "task") -> float:
    """Δp in percent, positive when better than single-task training; with one metric a task it is Δm.

    Args:
        values: Of a run.
        baseline: Of single-task training.
        up: For each metric, whether larger is better.
        aggregate: ``"task"``: the mean of ``task_deltas``, so that every task counts alike; ``"flat"``: the mean over
            all metrics, as Nash-MTL's code has it, where a task counts by how many it has.

    Raises:
        IsonomyError: As ``task_deltas``; another ``aggregate``.
    """
    if aggregate not in ("task", "flat"):
        raise unknown("value of aggregate", aggregate, ["task", "flat"])
    changes = _changes(values, baseline, up).values()
    return fmean(map(fmean, changes)) if aggregate == "task" else fmean(chain.from_iterable(changes))


def _changes(values: Values, baseline: Values, up: Mapping[str, Mapping[str, bool]]) -> dict[str, list[float]]:
    """For each task, the relative improvement of each of its metrics in percent."""
    result: dict[str, list[float]] = {}
    for task, directions in up.items():
        result[task] = []
        for name, larger_is_better in directions.items():
            reference = baseline[task][name]
            if not 0 < reference < inf:
                raise IsonomyError(
                    f"Δp needs positive single-task values, but {name} of task {task!r} is {reference:g}: "
                    "report another metric, or leave the task out."
                )
            change = 100 * (values[task][name] - reference) / reference
            result[task].append(change if larger_is_better else -change)
    return result
