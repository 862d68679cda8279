"""The main job: from flags to a finished folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from isonomy.bench import cluster, data, plan, records, report, results, sweep, timing
from isonomy.bench._compat import repair_torchvision
from isonomy.bench.progress import Progress, plural, table

# The names of every split's samples, of data whose files the user has.
SAMPLES = "samples.json"


def compare(
    flags: Mapping[str, Any],
    out: Path,
    jobs: int,
    resume: bool,
    console: Console,
    load: sweep.Load = data.load,
    timed: bool = True,
    shown: bool = True,
) -> list[sweep.Failure]:
    """Plans a sweep, runs what is left of it, and writes its tables and report.

    Args:
        flags: As for ``plan.resolve`` and ``cluster.executor``.
        out: The sweep's folder.
        jobs: Cells at a time.
        resume: Whether what the flags leave open comes from the folder.
        console: Where progress and tables are printed.
        load: Finds data sets.
        timed: Whether a step of every method is timed before the training.
        shown: Whether the table is printed.

    Returns:
        Why cells have failed, if any have.

    Raises:
        IsonomyError: The flags or the folder cannot be used; nothing has been written then.
    """
    records.require_writable(out)
    wanted = plan.resolve(flags, out, resume, load)
    cells = plan.cells(wanted, load)
    left = plan.survey(out, cells)
    timing.ratios(out)  # a damaged file is found now and not after the training

    problem = load(wanted.data)
    out.mkdir(parents=True, exist_ok=True)
    records.write_json(out / plan.FILE, wanted.facts)
    console.print(
        f"{wanted.data}: single-task training and {plural(len(wanted.methods), 'method')}, "
        f"{plural(wanted.seeds, 'seed')}, {plural(wanted.recipe.epochs, 'epoch')}; "
        f"{len(left)} of {plural(len(cells), 'run')} to do, in {out}",
        highlight=False,
        markup=False,
    )
    if problem.samples:
        records.write_json(out / SAMPLES, {split: list(names) for split, names in problem.samples.items()})
    for note in problem.notes:
        console.print(note, highlight=False, markup=False)
    if repair_torchvision():
        console.print("torchvision does not match this torch build; install both from one index to have its operators.")
    if timed:
        timing.update(
            out, plan.timed(wanted, load), load, lambda count: console.print(f"timing {plural(count, 'method')}")
        )
    with cluster.executor(flags, out, jobs, left) as execute, Progress(console, out, left, problem) as progress:
        failures = sweep.run(left, out, jobs, progress, load, execute)
    found = write(out, load)
    if shown:
        console.print(table(found, console.is_terminal))
    console.print(f"{out / results.REPORT}", highlight=False, markup=False, soft_wrap=True)
    return failures


def write(out: Path, load: sweep.Load = data.load) -> results.Results:
    """Writes ``results.csv``, ``summary.csv`` and ``report.html`` from the run folders.

    Args:
        out: The sweep's folder.
        load: Finds data sets.

    Returns:
        What they say.
    """
    found = results.collect(out, load)
    results.write_tables(found, out)
    records.write_text(out / results.REPORT, report.render(found))
    return found
