"""What the runs of a panel have recorded, epoch by epoch."""

from __future__ import annotations

from isonomy.bench import records
from isonomy.bench.cell import folder
from isonomy.bench.delta import Values, average, task_deltas
from isonomy.bench.experiments import measured
from isonomy.bench.experiments.measured import Measured
from isonomy.bench.experiments.schema import Panel
from isonomy.bench.results import Results
from isonomy.errors import IsonomyError


def lines(sweep: Results, method: str) -> list[list[records.Json]]:
    """The epochs of each run of a method that has done one, seed by seed.

    Args:
        sweep: The panel's.
        method: As in ``isonomy compare``, or a single-task training.
    """
    found = [records.read_metrics(sweep.folder / folder(method) / str(seed)) for seed in range(sweep.plan.seeds)]
    return [run for run in found if run]


def changes(found: Measured, panel: Panel, method: str | None) -> dict[str, float] | None:
    """What each task gains in percent against the single-task networks that the panel refers to, mean over seeds.

    Args:
        found: The experiment's sweeps.
        panel: One of its panels.
        method: As in ``isonomy compare``; None for single-task training.

    Returns:
        None where runs are missing, or a single-task value is not positive.
    """
    sweep, baseline = found.sweeps.get(panel.name), found.baseline(panel)
    finished: list[Values] = measured.runs(sweep, method) if sweep else []
    if sweep is None or baseline is None or not finished:
        return None
    try:
        return task_deltas(average(finished), baseline, sweep.up)
    except IsonomyError:
        return None  # the panel's own report says why
