"""The cells of a sweep on this machine: in this process, or in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from isonomy.bench.attempt import Failure, Listener, Load, attempt, died, tell
from isonomy.bench.cell import Cell


def run(cells: Sequence[Cell], out: Path, jobs: int, listener: Listener, load: Load) -> list[Failure]:
    """Runs cells that do not wait for each other.

    Args:
        cells: Not finished yet.
        out: The sweep's folder.
        jobs: How many at a time; 1 stays in this process.
        listener: Hears of the progress.
        load: Finds data sets; must be importable by name when there are several jobs.

    Returns:
        The failures.
    """
    if jobs > 1 and len(cells) > 1:
        return _run_in_processes(cells, out, jobs, listener, load)
    failures: list[Failure] = []
    for cell in cells:
        failure = attempt(cell, out, load, lambda done, cell=cell: listener.epoch(cell, done))  # type: ignore[misc]
        failures += tell(listener, cell, failure)
    return failures


def _run_in_processes(cells: Sequence[Cell], out: Path, jobs: int, listener: Listener, load: Load) -> list[Failure]:
    """As ``run``, in worker processes.

    A worker that dies takes its pool with it. Which of the cells that had begun killed it is not known, so each of them
    is tried again alone; the others get a new pool.
    """
    failures: list[Failure] = []
    batches = [(list(cells), jobs)]
    while batches:
        batch, workers = batches.pop(0)
        failed, begun, unfinished = _run_pool(batch, out, workers, listener, load)
        failures += failed
        suspects = [cell for cell in unfinished if cell.name in begun]
        if len(batch) == 1 or not suspects:
            for cell in unfinished:
                reason = "its process was killed, perhaps for want of memory; try fewer --jobs"
                failures += tell(listener, cell, died(cell, out, reason))
            continue
        batches += [([cell], 1) for cell in suspects]
        if rest := [cell for cell in unfinished if cell.name not in begun]:
            batches.append((rest, jobs))
    return failures


def _run_pool(
    cells: Sequence[Cell], out: Path, workers: int, listener: Listener, load: Load
) -> tuple[list[Failure], set[str], list[Cell]]:
    """Runs cells in a pool: which failed, which had begun, and which are not over because the pool broke."""
    context = multiprocessing.get_context("spawn")
    events: SimpleQueue[tuple[str, int]] = context.SimpleQueue()
    by_name = {cell.name: cell for cell in cells}
    begun: set[str] = set()
    unfinished: list[Cell] = []
    failures: list[Failure] = []
    with ProcessPoolExecutor(min(workers, len(cells)), context, _prepare, (events,)) as pool:
        try:
            running = {pool.submit(_attempt, cell, out, load): cell for cell in cells}
            while running:
                done, _ = wait(running, timeout=0.2)
                while not events.empty():
                    name, epochs = events.get()
                    begun.add(name)
                    listener.epoch(by_name[name], epochs)
                for future in done:
                    cell = running.pop(future)
                    try:
                        failures += tell(listener, cell, future.result())
                    except BrokenProcessPool:
                        unfinished.append(cell)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return failures, begun, unfinished


_events: SimpleQueue[tuple[str, int]]


def _prepare(events: SimpleQueue[tuple[str, int]]) -> None:
    """In a worker: remembers where to report, and ends with the parent, so that nothing trains on behind a kill."""
    global _events  # noqa: PLW0603 - the one thing a worker is handed at its start
    _events = events
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _attempt(cell: Cell, out: Path, load: Load) -> Failure | None:
    return attempt(cell, out, load, lambda done: _events.put((cell.name, done)))
