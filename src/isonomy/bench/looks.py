"""A run's epochs as a recording, so that findings and figures of a monitored training serve a sweep's runs, too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from isonomy import catalogue
from isonomy.bench import data, records
from isonomy.bench.architectures import LAST_LAYER
from isonomy.diagnostics.recording import Recording
from isonomy.errors import IsonomyError


def recording(folder: Path, load: Callable[[str], data.Problem] = data.load) -> Recording:
    """What a run has recorded, a look an epoch: its mean over the steps that were looked at.

    Its ``seconds`` are those of an epoch's training.

    Args:
        folder: Of one run, ``METHOD/SEED`` in a sweep's.
        load: Finds data sets.

    Raises:
        IsonomyError: It is not a run's folder, has no finished epoch or is damaged.
    """
    if not (folder / records.CONFIG).exists():
        raise IsonomyError(
            f"{folder} is no run's folder: {records.CONFIG} is missing; name one METHOD/SEED of a sweep."
        )
    config, lines = records.read_json(folder / records.CONFIG), records.read_metrics(folder)
    if not lines:
        raise IsonomyError(f"{folder} has no finished epoch yet: resume the sweep first.")
    try:
        tasks = [str(task) for task in config["tasks"]]
        method = catalogue.find(config["balancer"])
        named = catalogue.find(config["procedure"]["name"]) if config["procedure"] else method
        last = LAST_LAYER in load(config["data"]).levels
        looks = [_look(line, tasks, math.nan if method.levels else 1.0) for line in lines]
    except (KeyError, TypeError) as error:
        reason = f"{error} is not as a sweep writes it"
        raise records.damaged(folder, reason, "delete it to train this cell again") from None
    place = "the last shared layer" if last else "the shared part"
    return Recording.read(tasks, looks, method=named.title, place=place, unit="epoch")


def _look(line: records.Json, tasks: Sequence[str], without: float) -> dict[str, Any]:
    """An epoch's line; ``without`` is the weight of a gradient where the line has none."""
    raw = _column(line.get("gradient_norms"), tasks)
    scales = _column(line.get("loss_weights"), tasks)
    return {
        "step": line["epoch"],
        "losses": _column(line["train_losses"], tasks),
        "loss_weights": scales,
        "weights": _column(line.get("weights"), tasks) if line.get("weights") else [without] * len(tasks),
        "norms": [norm * abs(scale) for norm, scale in zip(raw, scales, strict=True)],
        "cosines": line.get("cosines") or None,
        "seconds": line.get("seconds"),
    }


def _column(values: Mapping[str, float | None] | None, tasks: Sequence[str]) -> list[float]:
    found = [(values or {}).get(task) for task in tasks]
    return [math.nan if value is None else float(value) for value in found]
