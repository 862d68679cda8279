"""One try at a cell, and who hears of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from isonomy.bench import data, records
from isonomy.bench.cell import Cell
from isonomy.bench.processes import KilledError
from isonomy.bench.runner import run_cell
from isonomy.errors import IsonomyError

Load = Callable[[str], data.Problem]


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result.

    Attributes:
        reason: In one line.
        refused: Whether the input was at fault, and not the code or the machine.
        killed: Whether one of its processes was killed, so that another try may end otherwise.
    """

    reason: str
    refused: bool = False
    killed: bool = False


class Listener(Protocol):
    """Hears of a sweep's progress."""

    def epoch(self, cell: Cell, done: int) -> None:
        """A cell has done so many epochs; the first call says that it has begun."""

    def finished(self, cell: Cell) -> None:
        """A cell has its test metrics."""

    def failed(self, cell: Cell, reason: str) -> None:
        """A cell cannot be finished."""


def attempt(cell: Cell, out: Path, load: Load, on_epoch: Callable[[int], None] = lambda done: None) -> Failure | None:
    """Runs a cell and stores the traceback if it fails.

    Args:
        cell: What to train.
        out: The sweep's folder.
        load: Finds data sets.
        on_epoch: Called with the number of epochs done.

    Returns:
        Why it failed; None if it did not.
    """
    try:
        run_cell(cell, out, load, on_epoch)
    except Exception as error:  # a cell may fail in any way; the others go on
        _store(cell, out, traceback.format_exc())
        reason = " ".join(str(error).split()) or type(error).__name__
        return Failure(reason, isinstance(error, IsonomyError), isinstance(error, KilledError))
    return None


def died(cell: Cell, out: Path, reason: str) -> Failure:
    """The failure of a cell whose process is no more; stored like others.

    Args:
        cell: Which could not be finished.
        out: The sweep's folder.
        reason: In one line.
    """
    _store(cell, out, reason + "\n")
    return Failure(reason)


def _store(cell: Cell, out: Path, text: str) -> None:
    (out / cell.name).mkdir(parents=True, exist_ok=True)
    records.write_text(out / cell.name / records.ERROR, text)


def tell(listener: Listener, cell: Cell, failure: Failure | None) -> list[Failure]:
    """Tells a listener how a cell has ended.

    Args:
        listener: Of the sweep.
        cell: Which is over.
        failure: Why it failed; None if it did not.

    Returns:
        The failure, if it is one.
    """
    if failure is None:
        listener.finished(cell)
        return []
    listener.failed(cell, failure.reason)
    return [failure]
