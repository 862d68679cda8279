"""Runs the cells of a sweep, some at a time, and tells a listener what happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from isonomy.bench import data, pool
from isonomy.bench.attempt import Failure, Listener, Load
from isonomy.bench.cell import Cell

__all__ = ["Execute", "Failure", "Listener", "Load", "run"]

# Runs cells that do not wait for each other, as ``pool.run`` does.
Execute = Callable[[Sequence[Cell], Path, int, Listener, Load], list[Failure]]


def run(
    cells: Sequence[Cell],
    out: Path,
    jobs: int,
    listener: Listener,
    load: Load = data.load,
    execute: Execute = pool.run,
) -> list[Failure]:
    """Runs the cells that are left.

    Args:
        cells: Not finished yet.
        out: The sweep's folder.
        jobs: How many at a time; 1 stays in this process.
        listener: Hears of the progress.
        load: Finds data sets; must be importable by name when there are several jobs.
        execute: Where they run.

    Returns:
        The failures.
    """
    failures: list[Failure] = []
    # Those that learn from single-task runs come when these are over.
    for wave in ([cell for cell in cells if not cell.waits], [cell for cell in cells if cell.waits]):
        failures += execute(wave, out, jobs, listener, load)
    return failures
