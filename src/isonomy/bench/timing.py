"""What a step costs: seconds a step of every method, taken in turn so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from statistics import median

import torch

from isonomy.bench import data, records
from isonomy.bench.cell import Cell
from isonomy.bench.runner import one_thread
from isonomy.bench.trainer import Trainer

FILE = "timing.json"
WARM_UP, MEASURED = 10, 30
# Seconds after which slow steps are timed no further, and the least number of them that counts.
PATIENCE, LEAST = 60.0, 3
REFERENCE = "ew"


def measure(cells: Sequence[Cell], load: Callable[[str], data.Problem] = data.load) -> dict[str, float]:
    """Median seconds a step of every method, on one thread and device, interleaved step by step.

    A method that cannot make the steps is left out; its cell will say why.

    Args:
        cells: One multi-task cell a method.
        load: Finds data sets.
    """
    times: dict[str, list[float]] = {}
    with one_thread():
        trainers: dict[str, Trainer] = {}
        for cell in cells:
            with suppress(Exception):  # whatever it is, the cell meets it again and reports it
                alone = replace(cell, config={**cell.config, "devices": 1})
                trainers[cell.method] = Trainer(alone, load(cell.config["data"]))
        # One step's at a time: those of fifty methods together would not fit in memory.
        batches = {name: chain.from_iterable(map(trainer.begin, repeat(0))) for name, trainer in trainers.items()}
        start = time.perf_counter()
        for turn in range(WARM_UP + MEASURED):
            if turn > LEAST and time.perf_counter() - start > PATIENCE:
                break
            for name in list(trainers):
                trainer, batch = trainers[name], next(batches[name])
                _wait(trainer)
                began = time.perf_counter()
                try:
                    trainer.step(batch)
                except Exception:  # as above
                    del trainers[name]
                    continue
                _wait(trainer)
                times.setdefault(name, []).append(time.perf_counter() - began)
    # The first turn is always warming up; of a few slow ones the rest counts.
    return {name: median(times[name][min(WARM_UP, len(times[name]) - LEAST) :]) for name in trainers}


def _wait(trainer: Trainer) -> None:
    if trainer.fabric.device.type == "cuda":
        torch.cuda.synchronize()


def ratios(out: Path) -> dict[str, float]:
    """Step times relative to plain summing's, as stored in a folder; empty when none were taken.

    Args:
        out: The sweep's folder.

    Raises:
        IsonomyError: The file is damaged.
    """
    return _stored(out, "ratio")


def seconds(out: Path) -> dict[str, float]:
    """Seconds a step, as stored in a folder; empty when none were taken.

    Args:
        out: The sweep's folder.

    Raises:
        IsonomyError: The file is damaged.
    """
    return _stored(out, "seconds")


def _stored(out: Path, what: str) -> dict[str, float]:
    path = out / FILE
    if not path.exists():
        return {}
    remedy = f"delete {path} and the steps are timed again"
    stored = records.read_json(path, remedy)
    try:
        return {name: float(entry[what]) for name, entry in stored.items()}
    except (TypeError, KeyError, ValueError):
        raise records.damaged(path, f"an entry has no {what}", remedy) from None


def update(
    out: Path,
    cells: Sequence[Cell],
    load: Callable[[str], data.Problem] = data.load,
    on_start: Callable[[int], None] = lambda count: None,
) -> None:
    """Times the methods that have no step time yet, and stores them; those that have one keep it.

    Args:
        out: The sweep's folder.
        cells: One multi-task cell a method, plain summing's among them.
        load: Finds data sets.
        on_start: Called with the number of methods to be timed, if there are any.
    """
    path = out / FILE
    stored = records.read_json(path) if path.exists() else {}
    missing = [cell for cell in cells if cell.method not in stored]
    if not missing:
        return
    on_start(len(missing))
    taken = measure([cell for cell in cells if cell in missing or cell.method == REFERENCE], load)
    reference = taken.get(REFERENCE)
    if reference is None:
        return
    for name, value in taken.items():
        stored.setdefault(name, {"seconds": value, "ratio": value / reference})
    records.write_json(path, stored)
