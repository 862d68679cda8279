"""What a sweep's folder says: the runs read back, the scores, and the two tables written from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isonomy.bench import data, methods, plan, records, timing
from isonomy.bench.cell import SINGLE, folder, single
from isonomy.bench.delta import Spread, average, delta_p, task_deltas
from isonomy.errors import IsonomyError

RESULTS, SUMMARY, REPORT = "results.csv", "summary.csv", "report.html"
RESULT_COLUMNS = ("data", "architecture", "method", "seed", "task", "metric", "value")
SUMMARY_COLUMNS = ("method", "delta_p_mean", "delta_p_std", "step_time_ratio")


@dataclass
class Row:
    """One method, over all seeds.

    Attributes:
        name: Of the method, or ``single_task``.
        title: For people.
        metrics: Task to metric to mean and deviation on the test split.
        delta: Δp; None for the single-task row and without a baseline.
        task_deltas: Each task's part of Δp.
        ratio: Step time relative to plain summing.
        epochs: For each seed the lines of ``metrics.jsonl``; empty for the single-task row.
    """

    name: str
    title: str
    metrics: dict[str, dict[str, Spread]]
    delta: Spread | None = None
    task_deltas: dict[str, float] = field(default_factory=dict)
    ratio: float | None = None
    epochs: list[list[records.Json]] = field(default_factory=list)


@dataclass
class Results:
    """A sweep.

    Attributes:
        folder: Where it is.
        plan: What was to be done.
        problem: Its data set.
        tasks: With their metrics.
        single: The single-task row; None when a single-task run is missing.
        single_epochs: For each task and seed the lines of ``metrics.jsonl`` of single-task training.
        rows: The methods all of whose seeds are finished.
        values: Every finished run's test metrics, by method name and seed.
        missing: Names of the runs that are not finished.
        no_delta: Why there is no Δp, if so.
    """

    folder: Path
    plan: plan.Plan
    problem: data.Problem
    tasks: tuple[data.Task, ...]
    single: Row | None
    single_epochs: dict[str, list[list[records.Json]]]
    rows: list[Row]
    values: dict[tuple[str, int], dict[str, dict[str, float]]]
    missing: list[str]
    no_delta: str | None = None

    @property
    def up(self) -> dict[str, dict[str, bool]]:
        """For each task and metric, whether larger is better."""
        return {task.name: {metric.name: metric.up for metric in task.metrics} for task in self.tasks}

    @property
    def ranked(self) -> list[Row]:
        """The rows that have a Δp, the best first."""
        return sorted((row for row in self.rows if row.delta), key=lambda row: -row.delta.mean if row.delta else 0.0)

    def row(self, name: str) -> Row | None:
        """The row of a method, if it is there."""
        return next((row for row in self.rows if row.name == name), None)


def collect(out: Path, load: Callable[[str], data.Problem] = data.load) -> Results:
    """Reads a sweep's folder.

    Args:
        out: The folder.
        load: Finds data sets.

    Raises:
        IsonomyError: There is no sweep, or a file is damaged.
    """
    stored = plan.read(out)
    problem = load(stored.data)
    seeds = range(stored.seeds)
    values = {}
    missing = []
    for cell in plan.cells(stored, load):
        test = records.test_metrics(out / cell.name)
        if test is None:
            missing.append(cell.name)
        else:
            values[cell.method, cell.seed] = test

    baselines = []
    for seed in seeds:
        alone = [values.get((single(task), seed)) for task in stored.tasks]
        if all(alone):
            baselines.append({task: metrics for run in alone if run for task, metrics in run.items()})
    complete = len(baselines) == stored.seeds
    results = Results(
        folder=out,
        plan=stored,
        problem=problem,
        tasks=data.select(problem, stored.tasks),
        single=Row(SINGLE, "Single-task", _spreads(baselines)) if complete else None,
        single_epochs={
            task: [records.read_metrics(out / f"{single(task)}/{seed}") for seed in seeds] for task in stored.tasks
        },
        rows=[],
        values=values,
        missing=missing,
        no_delta=None if complete else "a single-task run is missing",
    )
    step_times = timing.ratios(out)
    for name in stored.methods:
        runs = [values[name, seed] for seed in seeds if (name, seed) in values]
        if len(runs) < stored.seeds:
            continue
        row = Row(name, methods.find(name).title, _spreads(runs), ratio=step_times.get(name))
        row.epochs = [records.read_metrics(out / folder(name) / str(seed)) for seed in seeds]
        if results.single is not None:
            baseline = average(baselines)
            try:
                row.delta = Spread.of([delta_p(run, baseline, results.up) for run in runs])
                row.task_deltas = task_deltas(average(runs), baseline, results.up)
            except IsonomyError as error:
                results.no_delta = str(error)
        results.rows.append(row)
    return results


def _spreads(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, Spread]]:
    if not runs:
        return {}
    return {
        task: {name: Spread.of([run[task][name] for run in runs]) for name in metrics}
        for task, metrics in runs[0].items()
    }


def write_tables(results: Results, out: Path) -> None:
    """Writes ``results.csv`` and ``summary.csv``.

    Args:
        results: Of the sweep.
        out: Its folder.
    """
    rows = [
        (results.plan.data, results.plan.architecture, _method(name), seed, task, metric, repr(value))
        for (name, seed), tasks in results.values.items()
        for task, metrics in tasks.items()
        for metric, value in metrics.items()
    ]
    records.write_csv(out / RESULTS, RESULT_COLUMNS, rows)
    summary = [(row.name, *_cells(row.delta), "" if row.ratio is None else f"{row.ratio:.3f}") for row in results.rows]
    records.write_csv(out / SUMMARY, SUMMARY_COLUMNS, summary)


def _method(name: str) -> str:
    return SINGLE if name.startswith(f"{SINGLE}-") else name


def _cells(delta: Spread | None) -> tuple[str, str]:
    if delta is None:
        return "", ""
    return f"{delta.mean:.4f}", "" if delta.std is None else f"{delta.std:.4f}"


def effective_weights(row: Row, epoch: int | None = None) -> Mapping[str, float]:
    """What a method multiplied each task's gradient by: loss weight times gradient weight, the mean over seeds.

    Args:
        row: A method.
        epoch: From 0; None for the mean over all epochs.

    Returns:
        A number a task; NaN from a gradient balancer that makes its direction without weights.
    """
    without = math.nan if methods.find(row.name).method.levels else 1.0
    lines = [line for run in row.epochs for line in (run if epoch is None else [run[epoch]])]
    products = [
        {task: weight * (line["weights"] or {}).get(task, without) for task, weight in line["loss_weights"].items()}
        for line in lines
    ]
    return {task: sum(product[task] for product in products) / len(products) for task in products[0]}
