"""The overall score: Δp, the mean relative improvement over single-task training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, mean, stdev

from isonomy.errors import IsonomyError

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
    result = {}
    for task, directions in up.items():
        changes = []
        for name, larger_is_better in directions.items():
            reference = baseline[task][name]
            if not reference > 0:
                raise IsonomyError(
                    f"Δp needs positive single-task values, but {name} of task {task!r} is {reference:g}: "
                    "report another metric, or leave the task out."
                )
            change = 100 * (values[task][name] - reference) / reference
            changes.append(change if larger_is_better else -change)
        result[task] = fmean(changes)
    return result


def delta_p(values: Values, baseline: Values, up: Mapping[str, Mapping[str, bool]]) -> float:
    """Δp in percent: the mean of ``task_deltas`` over tasks, positive when better than single-task training.

    Args:
        values: Of a run.
        baseline: Of single-task training.
        up: For each metric, whether larger is better.
    """
    return fmean(task_deltas(values, baseline, up).values())
