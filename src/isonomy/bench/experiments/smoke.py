"""Every cell of an experiment for two steps, on generated files in the real formats: does all of it run?"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from isonomy.bench import compare, data, plan, records
from isonomy.bench.architectures import ARCHITECTURES
from isonomy.bench.backbones import CATALOGUE
from isonomy.bench.choice import SEARCH
from isonomy.bench.data import stand_ins
from isonomy.bench.data.roots import VARIABLE
from isonomy.bench.experiments import catalogue, run
from isonomy.bench.experiments.schema import Experiment, Panel
from isonomy.bench.methods import find
from isonomy.bench.options import name_of, pieces
from isonomy.bench.progress import plural

SMALL, FULL = "small", "full"
SIZES = (SMALL, FULL)
STEPS, TRIALS, SIDE = 2, 2, 64
# Where a tenth of the training images is for validation, the rest still makes two batches.
COUNTS = {"train": 6, "val": 2, "test": 2}
# Options of data sets, as far as they have them.
FEWER = {"train": "32", "val": "4", "test": "4", "batch_size": "2"}


class Brief:
    """A data set whose epochs are two steps long; everything else is its own.

    Args:
        problem: The data set.
    """

    def __init__(self, problem: data.Problem) -> None:
        self.problem = problem

    def __getattr__(self, name: str) -> Any:
        return getattr(self.problem, name)

    def batches(self, *arguments: Any, **named: Any) -> Iterator[Any]:
        """The first two batches of an epoch."""
        return islice(self.problem.batches(*arguments, **named), STEPS)


def load(name: str) -> data.Problem:
    """As ``data.load``, with short epochs.

    Args:
        name: Of the data set.
    """
    brief: Any = Brief(data.load(name))
    problem: data.Problem = brief
    return problem


def smoke(experiments: Sequence[Experiment], jobs: int, console: Console, wishes: run.Wishes, size: str = SMALL) -> int:
    """Runs every cell of experiments for two steps, in a temporary folder.

    Args:
        experiments: Which ones.
        jobs: Cells at a time.
        console: Where a line is printed for every panel.
        wishes: Of these the methods and the further flags.
        size: Of images: ``"small"``, the smallest that a network takes and that something can be seen on, or
            ``"full"``.

    Returns:
        How many panels have failed.

    Raises:
        IsonomyError: There is no such method.
    """
    failed = 0
    for experiment in [run.chosen(each, wishes.methods) for each in experiments]:
        with tempfile.TemporaryDirectory(prefix="isonomy-smoke-") as folder:
            failed += _smoke(experiment, Path(folder), jobs, console, wishes, size)
    return failed


def _smoke(experiment: Experiment, out: Path, jobs: int, console: Console, wishes: run.Wishes, size: str) -> int:
    small = replace(experiment, panels=tuple(_brief(panel, size) for panel in experiment.panels))
    wishes = replace(wishes, seeds=1, epochs=1, weights=run.RANDOM)
    failed = 0
    for panel in run.trained(small):
        began = time.perf_counter()
        problems = _panel(small, panel, out, jobs, wishes, size)
        seconds = time.perf_counter() - began
        cells = plural(catalogue.cells(panel), "run")
        say(console, f"{experiment.name:<16} {panel.name:<20} {cells}, {seconds:.0f} s", problems)
        failed += bool(problems)
    with _rooted(out / "data"):
        try:
            run.finish(small, out, _silent(), run.differences(small, wishes, load), load)
        except Exception as error:  # tables and figures may fail in any way; the other experiments go on
            say(console, f"{experiment.name:<16} tables and figures", [_reason(error)])
            failed += 1
    return failed


def say(console: Console, line: str, problems: list[str]) -> None:
    """Prints how something went.

    Args:
        console: Where.
        line: What it was.
        problems: What was wrong with it.
    """
    console.print(line, *(f"\n    failed: {each}" for each in problems), highlight=False, markup=False, soft_wrap=True)


def _panel(experiment: Experiment, panel: Panel, out: Path, jobs: int, wishes: run.Wishes, size: str) -> list[str]:
    """Runs a panel, and leaves what tables and figures need: why it failed, if it did."""
    folder = out / panel.name
    with _rooted(out / "data"):
        try:
            _write_data(panel, out / "data", size)
            wanted = run.flags(experiment, panel, wishes)
            if any(find(name).method.name == SEARCH for name in wanted["methods"]):
                wanted["trials"] = TRIALS
            compare.compare(wanted, folder, jobs, False, _silent(), load, timed=False)
            cells = plan.cells(plan.read(folder), load)
        except Exception as error:  # a panel may fail in any way; the others go on
            return [_reason(error)]
    # Those of large networks would fill the disk; that a cell is finished shows in its checkpoint being there.
    for path in folder.rglob("*.pt"):
        path.write_bytes(b"")
    errors = {cell.name: folder / cell.name / records.ERROR for cell in cells}
    return [f"{name}: {path.read_text().splitlines()[-1]}" for name, path in errors.items() if path.exists()]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _silent() -> Console:
    return Console(file=StringIO(), width=200)


@contextmanager
def _rooted(root: Path) -> Iterator[None]:
    """The files of data sets are below a folder for a while."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _side(panel: Panel) -> int:
    """Of images that the panel's network takes."""
    if panel.backbone is None:
        return SIDE
    factor = ARCHITECTURES[name_of(panel.architecture or "hps")].factor
    multiple = factor * CATALOGUE[name_of(panel.backbone)].multiple
    return -(-SIDE // multiple) * multiple


def _brief(panel: Panel, size: str) -> Panel:
    """A panel with few and small samples."""
    name = name_of(panel.data)
    known = getattr(data.load(panel.data), "options", ())
    changes = dict(FEWER)
    if size == SMALL and name in stand_ins.NAMES:
        changes["size"] = f"{_side(panel)}x{_side(panel)}"
    return replace(
        panel, data=_changed(panel.data, {key: value for key, value in changes.items() if key in known}, known)
    )


def _changed(text: str, changes: Mapping[str, str], known: Any) -> str:
    options = {**dict(pieces(text, known, name_of(text))), **changes}
    return ":".join(filter(None, [name_of(text), ",".join(f"{key}={value}" for key, value in options.items())]))


def _write_data(panel: Panel, root: Path, size: str) -> None:
    """Writes the panel's data set, unless it is embedded or there already."""
    name = name_of(panel.data)
    if name in stand_ins.NAMES and not (root / name).exists():
        side = _side(panel)
        stand_ins.write(name, root / name, (side, side) if size == SMALL else None, COUNTS)
