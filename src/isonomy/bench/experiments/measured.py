"""What the sweeps of an experiment have measured, by the papers' names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from isonomy.bench import data, plan, results, timing
from isonomy.bench.cell import single
from isonomy.bench.delta import Spread, Values, average, delta_p
from isonomy.bench.experiments.published import Measure
from isonomy.bench.experiments.schema import Experiment, Panel
from isonomy.bench.results import Results, effective_weights
from isonomy.bench.sweep import Load
from isonomy.errors import IsonomyError


@dataclass
class Measured:
    """An experiment's sweeps, as far as they have come.

    Attributes:
        experiment: Whose they are.
        sweeps: By panel; those that have begun.
    """

    experiment: Experiment
    sweeps: Mapping[str, Results]

    def spread(self, panel: Panel, method: str | None, wanted: Measure) -> Spread | None:
        """A method's number.

        Args:
            panel: Of the experiment.
            method: As in ``isonomy compare``; None for single-task training.
            wanted: Which number.

        Returns:
            The mean over the seeds that are finished; None without any, and where there is no such number.
        """
        if wanted.change:
            return self._change(panel, method, replace(wanted, change=False))
        sweep = self.sweeps.get(panel.name)
        if sweep is None:
            return None
        if wanted.kind == "seconds":
            taken = timing.seconds(sweep.folder).get(method or "")
            return None if taken is None else Spread.of([taken])
        if wanted.kind == "weight":
            values = self._weights(sweep, method, wanted.task)
        else:
            values = [self._value(panel, sweep, run, wanted) for run in runs(sweep, method)]
        known = [value for value in values if value is not None and math.isfinite(value)]
        return Spread.of(known) if known else None

    def _value(self, panel: Panel, sweep: Results, run: Values, wanted: Measure) -> float | None:
        if wanted.kind == "metric":
            return run[wanted.task][wanted.metric]
        if wanted.kind == "mean":
            return fmean(run[task.name][task.metrics[0].name] for task in sweep.tasks)
        baseline = self.baseline(panel)
        if baseline is None:
            return None
        try:
            return delta_p(run, baseline, sweep.up)
        except IsonomyError:
            return None  # the panel's own report says why

    def baseline(self, panel: Panel) -> Values | None:
        """The mean of the single-task networks that a panel's overall scores are relative to; None without any."""
        reference = self.sweeps.get(panel.reference or panel.name)
        alone = runs(reference, None) if reference else []
        return average(alone) if alone else None

    def _weights(self, sweep: Results, method: str | None, task: str) -> list[float | None]:
        row = sweep.row(method) if method else None
        return [effective_weights(replace(row, epochs=[run]))[task] for run in row.epochs] if row else []

    def _change(self, panel: Panel, method: str | None, wanted: Measure) -> Spread | None:
        base = next(each for each in self.experiment.panels if each.published == panel.published and not each.suffix)
        pair = [self.spread(each, method, wanted) for each in (base, panel)]
        if pair[0] is None or pair[1] is None:
            return None
        return Spread(abs(pair[1].mean - pair[0].mean), None, min(pair[0].count, pair[1].count))


def runs(sweep: Results, method: str | None) -> list[Values]:
    """The test metrics of a method's finished seeds.

    Args:
        sweep: The panel's.
        method: As in ``isonomy compare``; None for single-task training, which is finished
            when all tasks are.
    """
    found: list[Values] = []
    for seed in range(sweep.plan.seeds):
        names = [single(task) for task in sweep.plan.tasks] if method is None else [method]
        parts = [sweep.values.get((name, seed)) for name in names]
        if all(part is not None for part in parts):
            found.append({task: metrics for part in parts if part for task, metrics in part.items()})
    return found


def collect(experiment: Experiment, out: Path, load: Load = data.load) -> Measured:
    """Reads an experiment's folder.

    Args:
        experiment: Which one.
        out: Its folder, with one for every panel.
        load: Finds data sets.
    """
    begun = [panel.name for panel in experiment.panels if (out / panel.name / plan.FILE).exists()]
    return Measured(experiment, {name: results.collect(out / name, load) for name in begun})


def missing(found: Measured) -> Sequence[str]:
    """The runs that are not finished, ``panel/method/seed``; panels that have not begun by their names alone."""
    waiting = [panel.name for panel in found.experiment.panels if panel.methods and panel.name not in found.sweeps]
    return [*waiting, *(f"{name}/{run}" for name, sweep in found.sweeps.items() for run in sweep.missing)]
