"""Says in sentences what is wrong with the balance of a script, of a Monitor's recording or of a sweep."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from isonomy.bench import cell, looks, plan, records
from isonomy.bench.watching import Watch
from isonomy.diagnostics import load
from isonomy.diagnostics.findings import findings, summary
from isonomy.diagnostics.recording import FILE, Recording
from isonomy.errors import IsonomyError, listing

LAYOUT: dict[str, Any] = {
    "width": 110,
    "subsequent_indent": "  ",
    "break_long_words": False,
    "break_on_hyphens": False,
}
_BUILT = re.compile(r'isonomy\.build\("([^"]+)"')

Case = tuple[str, Recording]
"""What was looked at, by name, and what was seen."""


def diagnose(target: Path, steps: int, every: int, report: Path | None, arguments: Sequence[str]) -> int:
    """Prints what is wrong, or that nothing is.

    Args:
        target: A script, or a folder or file with what was recorded before.
        steps: Backward passes after which a script is stopped.
        every: Of these, how many there are to a look.
        report: Where an HTML page is written; with numbers before its ending if there are several. None for nowhere.
        arguments: The script's own.

    Returns:
        0; of a script that has failed 1, and of one that was interrupted 130.

    Raises:
        IsonomyError: There is nothing to judge.
    """
    for name, value in (("--steps", steps), ("--every", every)):
        if value < 1:
            raise IsonomyError(f"{name} is {value}: it must be at least 1.")
    if not target.exists():
        raise IsonomyError(f"There is no {target}: name a training script, a Monitor's folder or a sweep's.")
    if report is not None:
        report = report.absolute()  # wherever a script goes
        if report.is_dir():
            raise IsonomyError(f"--report {report} is a folder: name a file, such as {report / 'report.html'}.")
        records.require_writable(report.parent, "--report")
    if target.suffix == ".py" and target.is_file():
        code, cases = watched(target, steps, every, arguments)
    elif arguments:
        raise IsonomyError(f"{target} takes no arguments ({' '.join(arguments)}): only a script, a .py file, does.")
    else:
        code, cases = 0, recorded(target)
    with torch.device("cpu"):  # a script may have set another default
        for number, case in enumerate(cases, start=1):
            click.echo("\n" * (number > 1) + "\n".join(paragraph(*case)))
            if report is not None:
                page = report if len(cases) == 1 else report.with_stem(f"{report.stem}-{number}")
                _write(page, *case)
    return code


def watched(script: Path, steps: int, every: int, arguments: Sequence[str]) -> tuple[int, list[Case]]:
    """Runs a script and looks on.

    Args:
        script: To be run as it is.
        steps: As for ``diagnose``; so are the others.
        every: Of these.
        arguments: Its own.

    Returns:
        The exit code, and what was seen; nothing only of a script that has failed or was interrupted.

    Raises:
        IsonomyError: There is nothing to judge.
    """
    if "LOCAL_RANK" in os.environ:
        raise IsonomyError(
            f"The doctor looks at one process, and this is one of several (LOCAL_RANK is set): run `isonomy doctor "
            f"{script}` without torchrun, or give the script an isonomy.Monitor, which follows all processes."
        )
    watch = Watch(script, steps, every)
    code = watch.run(arguments)
    cases = watch.recordings()
    if not cases and code == 0:
        raise IsonomyError(watch.nothing_seen())
    return code, cases


def recorded(target: Path) -> list[Case]:
    """What a Monitor or the bench has left.

    Args:
        target: A Monitor's folder or file, or the folder of a run, a sweep or an experiment.

    Raises:
        IsonomyError: It is none of these, or there is nothing in it yet.
    """
    if target.is_file() or (target / FILE).exists():
        found = load(target)
        if not len(found):
            raise IsonomyError(f"{target} has no look in it yet: train a step with the Monitor first.")
        return [(str(target), found)]
    if (target / records.METRICS).exists():
        return [(str(target), looks.recording(target))]
    sweeps = (
        [target] if (target / plan.FILE).exists() else [file.parent for file in sorted(target.glob(f"*/{plan.FILE}"))]
    )
    if not sweeps:
        raise IsonomyError(
            f"{target} is nothing the doctor knows: neither {FILE} of a Monitor is in it, nor {records.METRICS} of a "
            f"run, nor {plan.FILE} of a sweep or, one level down, of an experiment's panels; name one of their folders "
            "or a training script."
        )
    return [case for sweep in sweeps for case in _sweep(sweep)]


def _sweep(folder: Path) -> list[Case]:
    """Every method's first finished run."""
    stored = plan.read(folder)
    runs = {name: [folder / cell.folder(name) / str(seed) for seed in range(stored.seeds)] for name in stored.methods}
    first = {name: next(filter(records.test_metrics, paths), None) for name, paths in runs.items()}
    if missing := [name for name, path in first.items() if path is None]:
        click.echo(f"{folder}: no seed of {listing(missing)} is finished.\n", err=True)
    found = [(str(path), looks.recording(path)) for path in first.values() if path is not None]
    if not found:
        raise IsonomyError(f"{folder} has no finished run: `isonomy compare --resume --out {folder}` goes on with it.")
    return found


def paragraph(name: str, recording: Recording) -> list[str]:
    """A heading and the findings, as lines.

    Args:
        name: What was looked at.
        recording: What was seen.
    """
    count, last = len(recording), int(recording.steps[-1])
    seen = f"{count} look{'s' * (count > 1)} up to {recording.unit} {last}"
    lines = [f"{name}: {recording.method}, gradients at {recording.place}, {seen}"]
    for sentence in summary(recording):
        lines += textwrap.wrap(sentence, initial_indent="- ", **LAYOUT)
    # What a script adds up by itself has the method that a recording has by default.
    return lines + two_lines(recording) if recording.method == Recording.method else lines


def two_lines(recording: Recording) -> list[str]:
    """The code that brings the first remedy that is a method into a loop that adds its losses up, as lines.

    Args:
        recording: Of such a loop.
    """
    method = next(filter(None, (_BUILT.search(finding.remedy) for finding in findings(recording))), None)
    if method is None:
        return []
    tasks = ", ".join(f'"{task}": ...' for task in recording.tasks)
    return [
        "  Two lines do it, the first before the loop, the second for the sum, with z for the feature that heads read:",
        f'    balancer = isonomy.build("{method[1]}", tasks={json.dumps(recording.tasks, ensure_ascii=False)})',
        f"    loss = balancer({{{tasks}}}, shared=z)",
    ]


def _write(page: Path, name: str, recording: Recording) -> None:
    from isonomy.diagnostics import html  # noqa: PLC0415 - takes matplotlib, which the sentences do without

    page.parent.mkdir(parents=True, exist_ok=True)
    records.write_text(page, html.render(recording, title=name))
    click.echo(page)
