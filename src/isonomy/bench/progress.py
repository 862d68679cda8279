"""What a sweep looks like in a terminal: bars while it runs, a table when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from isonomy.bench import data, records
from isonomy.bench.cell import Cell
from isonomy.bench.delta import Spread
from isonomy.bench.results import Results, Row

# A table of more metrics than this is turned: a line a metric, a column a method.
ACROSS = 9


class Progress:
    """Bars of the runs that are on their way, and a line for every run that is over.

    Args:
        console: Where they are printed; bars only in a terminal.
        out: The sweep's folder.
        cells: What is going to run.
        problem: The data set.
    """

    def __init__(self, console: Console, out: Path, cells: Sequence[Cell], problem: data.Problem) -> None:
        self.console, self.out = console, out
        self.units = {(task.name, metric.name): metric.unit for task in problem.tasks for metric in task.metrics}
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.total = self.bars.add_task("all runs", total=len(cells))
        self.running: dict[str, TaskID] = {}

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def epoch(self, cell: Cell, done: int) -> None:
        """A run has done so many epochs."""
        if cell.name not in self.running:
            self.running[cell.name] = self.bars.add_task(f"  {cell.name}", total=cell.length)
        self.bars.update(self.running[cell.name], completed=done)

    def finished(self, cell: Cell) -> None:
        """A run is done: its test metrics, in a line."""
        lines, tested = records.read_metrics(self.out / cell.name), records.test_metrics(self.out / cell.name)
        values = [
            f"{task} {number(value)}{_spaced(self.units[task, metric])}"
            for task, metrics in (tested or {}).items()
            for metric, value in metrics.items()
        ]
        seconds = sum(part["seconds"] for part in lines[-1].get("trials", lines))
        self._over(cell, f"{cell.name:<24} {'   '.join(values)}   [dim]{seconds:.0f} s[/dim]")

    def failed(self, cell: Cell, reason: str) -> None:
        """A run has failed: why, in a line."""
        self._over(cell, f"[red]{cell.name:<24} failed:[/red] {escape(reason)}")

    def _over(self, cell: Cell, line: str) -> None:
        if cell.name in self.running:
            self.bars.remove_task(self.running.pop(cell.name))
        self.bars.advance(self.total)
        self.console.print(line, highlight=False, soft_wrap=True)


def number(value: float) -> str:
    """A metric with four significant digits, and all those before the point."""
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:#.4g}".rstrip(".")


def signed(value: float, digits: int) -> str:
    """A number with its sign, such as ``"−3.2"``."""
    return f"{value:+.{digits}f}".replace("-", "−")


def spread(value: Spread, digits: int | None = None, sign: bool = False) -> str:
    """A mean with its deviation, such as ``"+1.15 ± 0.16"``; the deviation has the mean's decimals.

    Args:
        value: The mean and deviation.
        digits: Decimals; None for as many as four significant digits of the mean need.
        sign: Whether a positive mean gets its sign.
    """
    if digits is None:
        digits = len(number(value.mean).partition(".")[2]) if "e" not in number(value.mean) else 2
    mean = signed(value.mean, digits) if sign else f"{value.mean:.{digits}f}".replace("-", "−")
    return mean if value.std is None else f"{mean} ± {value.std:.{digits}f}"


def _spaced(unit: str) -> str:
    return f" {unit}" if unit else ""


def table(results: Results, wide: bool = True) -> Table:
    """Per-task metrics, Δp and step time of every method.

    Args:
        results: Of the sweep.
        wide: Whether the terminal decides the width; else nothing is wrapped.
    """
    drawn = Table(title=f"{results.plan.data}, test split, {plural(results.plan.seeds, 'seed')}")
    rows = ([results.single] if results.single else []) + results.rows
    best = results.ranked[0].name if results.ranked else None
    names = [f"{task.name}\n{heading(metric)}" for task in results.tasks for metric in task.metrics]
    names += ["Δp, %", "step time"]
    if len(names) > ACROSS:
        drawn.add_column("", no_wrap=True)
        for row in rows:
            drawn.add_column(row.title, justify="right", no_wrap=True, style="bold" if row.name == best else None)
        for name, values in zip(names, zip(*(cells(row, results)[1:] for row in rows), strict=True), strict=True):
            drawn.add_row(name.replace("\n", ", "), *values)
        return drawn
    drawn.add_column("method", no_wrap=True)
    for name in names:
        drawn.add_column(name, justify="right", no_wrap=not wide or "\n" not in name)
    for row in rows:
        drawn.add_row(*cells(row, results), style="bold" if row.name == best else None)
    return drawn


def heading(metric: data.Metric) -> str:
    """A metric's name with its direction and unit, such as ``"accuracy ↑, %"``."""
    return f"{metric.name} {'↑' if metric.up else '↓'}{f', {metric.unit}' if metric.unit else ''}"


def plural(count: int, noun: str) -> str:
    """``"1 seed"``, ``"3 seeds"``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def cells(row: Row, results: Results) -> list[str]:
    """A row of the table as text.

    Args:
        row: A method, or single-task training.
        results: Of the sweep.
    """
    metrics = [spread(row.metrics[task.name][metric.name]) for task in results.tasks for metric in task.metrics]
    delta = "–" if row.delta is None else spread(row.delta, 2, sign=True)
    return [row.title, *metrics, delta, "–" if row.ratio is None else f"{row.ratio:.2f} ×"]
