"""One cell, trained to its end."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from isonomy.bench import choice, data, pictures, processes, records
from isonomy.bench.cell import Cell
from isonomy.bench.trainer import Trainer
from isonomy.bench.training import test, train


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs the block on one thread, so that sums come out the same however many cells run at once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_cell(
    cell: Cell,
    out: Path,
    load: Callable[[str], data.Problem] = data.load,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Trains a cell to its end, from where it was left, in as many processes as it wants devices.

    Args:
        cell: What to train.
        out: The sweep's folder.
        load: Finds data sets.
        on_epoch: Called with the number of epochs done: at the start, and after each.
    """
    if cell.config["devices"] > 1:
        processes.launch(partial(_complete, cell, out, load), cell, on_epoch)
    else:
        _complete(cell, out, load, on_epoch)
        gc.collect()  # a trainer and its procedure hold each other, and with them a network


def _complete(cell: Cell, out: Path, load: Callable[[str], data.Problem], on_epoch: Callable[[int], None]) -> None:
    """As ``run_cell``, in each of the processes."""
    folder = out / cell.name
    if records.test_metrics(folder) is not None:
        return  # it ended just before its process did
    problem = load(cell.config["data"])
    with one_thread():
        if cell.procedure == choice.SEARCH:
            from isonomy.bench.procedures.grid_search import search  # noqa: PLC0415 - needs Optuna

            trainer, trained_in, lines = search(cell, out, problem, on_epoch)
        else:
            trainer = Trainer(cell, problem)
            trainer.procedure.prepare(out)
            trained_in, lines = folder, train(trainer, folder, on_epoch)
        # Only after training; the last epoch's line with its result makes the cell finished.
        test(trainer, trained_in, lines)
        pictures.save(folder, problem.pictures(trainer.judged, cell.tasks))
        records.write_lines(folder / records.METRICS, lines)
    # What stays of a finished training is the model that counts; optimisers are twice as large.
    records.save_checkpoint(folder / records.CHECKPOINT, {**trainer.state(len(lines)), "optimizers": []})
    (folder / records.BEST).unlink(missing_ok=True)
    (folder / records.ERROR).unlink(missing_ok=True)
