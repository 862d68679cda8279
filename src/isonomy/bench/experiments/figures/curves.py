"""Curves over training of what is recorded of every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING

from isonomy.bench import methods, records
from isonomy.bench.cell import single
from isonomy.bench.experiments.figures import sheet
from isonomy.bench.experiments.figures.runs import lines as recorded
from isonomy.bench.experiments.measured import Measured
from isonomy.bench.experiments.schema import Panel
from isonomy.bench.results import Results
from isonomy.diagnostics import comparisons, style
from isonomy.errors import unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS, TASKS = "methods", "tasks"
# What is recorded of pairs of tasks; everything else is recorded of each task.
PAIRS = ("cosines", "dots")
NAN = math.nan


@dataclass(frozen=True)
class Value:
    """Something that an epoch's line tells.

    Attributes:
        title: For people.
        read: It, of a line, a method as in ``isonomy compare``, the run's tasks and one task or two of them; NaN where
            it was not recorded.
        positive: Whether it is drawn on a logarithmic scale.
    """

    title: str
    read: Callable[[records.Json, str, Sequence[str], Sequence[str]], float]
    positive: bool = False


def _of_task(name: str) -> Callable[[records.Json, str, Sequence[str], Sequence[str]], float]:
    return lambda line, method, tasks, of: float((line.get(name) or {}).get(of[0], NAN))


def _of_pair(name: str) -> Callable[[records.Json, str, Sequence[str], Sequence[str]], float]:
    return lambda line, method, tasks, of: float(line[name][tasks.index(of[0])][tasks.index(of[-1])])


def _scaled(line: records.Json, method: str, tasks: Sequence[str], of: Sequence[str]) -> float:
    return float(line["train_losses"][of[0]] * line["loss_weights"][of[0]])


def _weight(line: records.Json, method: str, tasks: Sequence[str], of: Sequence[str]) -> float:
    without = NAN if methods.find(method).method.levels else 1.0
    return float(line["loss_weights"][of[0]] * (line["weights"] or {}).get(of[0], without))


VALUES = {
    "train_losses": Value("training loss", _of_task("train_losses")),
    "scaled_losses": Value("loss times its weight", _scaled),
    "gradient_norms": Value("gradient norm", _of_task("gradient_norms"), positive=True),
    "squared_norms": Value("squared gradient norm", _of_pair("dots"), positive=True),
    "alignment": Value("cosine with the aggregate", _of_task("alignment")),
    "effective_weights": Value("weight", _weight),
    "feature_distance": Value("feature distance", _of_task("feature_distance")),
    "cosines": Value("cosine", _of_pair("cosines")),
    "dots": Value("dot product", _of_pair("dots")),
}


def curves(found: Measured, values: Sequence[str], lines: str, alone: bool = False) -> Figure | None:
    """A row of panels for every sweep and every value, mean over seeds.

    Args:
        found: The experiment's sweeps.
        values: Names of ``VALUES``.
        lines: What a line is: ``"methods"``, with a panel for every task or pair of tasks, or ``"tasks"``, with a panel
            for every method.
        alone: Whether each task's single-task training is drawn, too, where lines are methods.

    Raises:
        IsonomyError: A value, or what a line is, is unknown.
    """
    if lines not in (METHODS, TASKS):
        raise unknown("kind of lines", lines, (METHODS, TASKS))
    rows = []
    for panel in found.experiment.panels:
        for name in values:
            if name not in VALUES:
                raise unknown("value of curves", name, VALUES)
            sweep = found.sweeps.get(panel.name)
            drawn = _row(sweep, panel, name, lines, alone) if sweep else {}
            if drawn:
                rows.append((panel.name, VALUES[name], drawn))
    if not rows:
        return None
    figure, grid = sheet.grid(len(rows), max(len(drawn) for _, _, drawn in rows), (3.0, 2.3))
    for row, (sweep_name, value, drawn) in zip(grid, rows, strict=True):
        looks = style.looks(list(dict.fromkeys(name for series in drawn.values() for name in series)))
        for ax, (title, series) in zip(row, drawn.items(), strict=False):
            comparisons.curves(series, ax=ax, styles=looks, log=value.positive)
            ax.set_title(title)
        row[0].set_ylabel(f"{sweep_name}\n{value.title}" if len(found.experiment.panels) > 1 else value.title)
        for ax in row[len(drawn) :]:
            ax.set_axis_off()
    sheet.legend(figure, [ax for row in grid for ax in row])
    return figure


def _row(sweep: Results, panel: Panel, name: str, lines: str, alone: bool) -> dict[str, dict[str, list[float]]]:
    """For each small panel its lines, a value an epoch; those that have none are left out."""
    tasks = list(sweep.plan.tasks)
    pairs = list(combinations(tasks, 2)) if name in PAIRS else [(task,) for task in tasks]
    runs = {printed: (ours, tasks, recorded(sweep, ours)) for printed, ours in panel.methods.items()}
    found: dict[tuple[str, str], list[float]] = {}
    for of in pairs:
        title = " and ".join(of)
        for printed, (ours, trained, epochs) in runs.items():
            found[title, printed] = _means(epochs, VALUES[name], ours, trained, of)
        if alone and len(of) == 1:
            epochs = recorded(sweep, single(of[0]))
            found[title, "Single-task"] = _means(epochs, VALUES[name], "ew", of, of)
    if lines == TASKS:
        found = {(printed, title): series for (title, printed), series in found.items()}
    shown: dict[str, dict[str, list[float]]] = {}
    for (small, line), series in found.items():
        if not all(map(math.isnan, series)):
            shown.setdefault(small, {})[line] = series
    return shown


def _means(
    runs: Sequence[Sequence[records.Json]], value: Value, method: str, tasks: Sequence[str], of: Sequence[str]
) -> list[float]:
    """Over seeds, as many epochs as all of them have."""
    return [fmean(value.read(line, method, tasks, of) for line in epoch) for epoch in zip(*runs, strict=False)]
