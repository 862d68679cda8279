"""``isonomy run``: what it is told, checked, and handed on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from isonomy.errors import IsonomyError


def execute(
    name: str,
    *,
    weights_root: str | None,
    methods: list[str] | None,
    seeds: int | None,
    epochs: int | None,
    out: str | None,
    jobs: int,
    smoke: str | None,
    **flags: Any,
) -> tuple[bool, bool]:
    """Runs experiments, as ``isonomy run`` is told.

    Args:
        name: As ``catalogue.find`` has it.
        weights_root: Folder with pretrained weights, or ``"none"``.
        methods: Those to be compared; None for all.
        seeds: How many; None for the file's.
        epochs: Budget of every run; None for the file's.
        out: The folder; None for ``runs/`` and the experiment's name.
        jobs: Cells at a time.
        smoke: Size of images of a trial run; None for a real one.
        flags: Further ones of a sweep.

    Returns:
        Whether anything failed, and whether only input was at fault.

    Raises:
        IsonomyError: Something is unknown or missing.
    """
    from rich.console import Console  # noqa: PLC0415 - `isonomy list` should not wait for it, nor for Lightning

    from isonomy.bench.experiments import catalogue  # noqa: PLC0415
    from isonomy.bench.experiments import run as runs  # noqa: PLC0415
    from isonomy.bench.experiments import smoke as trial  # noqa: PLC0415

    for flag, number in (("jobs", jobs), ("seeds", seeds), ("epochs", epochs)):
        if number is not None and number < 1:
            raise IsonomyError(f"--{flag} is {number}: it must be at least 1.")
    if out == "":
        raise IsonomyError("--out is empty: name a folder.")
    console = Console(width=None if sys.stdout.isatty() else 160)
    wishes = runs.Wishes(methods, seeds, epochs, weights_root, {k: v for k, v in flags.items() if v is not None})
    if smoke is not None:
        return bool(trial.smoke(catalogue.find(name), jobs, console, wishes, smoke)), False
    failures = runs.run(name, Path(out) if out else None, jobs, console, wishes)
    return bool(failures), all(failure.refused for failure in failures)
