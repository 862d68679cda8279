"""Runs experiments: a sweep for every panel, and what was measured beside what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from isonomy.bench import compare, data, methods, plan, records
from isonomy.bench.experiments import catalogue, measured, tables
from isonomy.bench.experiments.schema import CLAIM, Experiment, Panel
from isonomy.bench.options import name_of
from isonomy.bench.progress import plural
from isonomy.bench.sweep import Failure, Load
from isonomy.errors import IsonomyError, unknown

RANDOM = "none"
ENDINGS = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class Wishes:
    """What a user wants otherwise than an experiment's file says.

    Attributes:
        methods: Those to be compared, as the paper prints them or as ``isonomy compare`` has them; None for all.
        seeds: How many; None for the file's.
        epochs: Budget of every run; None for the file's.
        weights: The folder with pretrained weights; ``"none"`` for random ones.
        flags: Further ones of ``plan.resolve``.
    """

    methods: Sequence[str] | None = None
    seeds: int | None = None
    epochs: int | None = None
    weights: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)


def run(
    pattern: str, out: Path | None, jobs: int, console: Console, wishes: Wishes, load: Load = data.load
) -> list[Failure]:
    """Runs experiments, and prints and writes their tables and figures.

    Args:
        pattern: As ``catalogue.find`` has it.
        out: The folder: an experiment's own, or that of several; None for ``runs/``.
        jobs: Cells at a time.
        console: Where progress and tables are printed.
        wishes: What is otherwise than in the files.
        load: Finds data sets.

    Returns:
        Why cells have failed, if any have.

    Raises:
        IsonomyError: Something is unknown or missing; nothing has been written then.
    """
    found = [chosen(experiment, wishes.methods) for experiment in catalogue.find(pattern)]
    folders = [(out or Path("runs")) / each.name if out is None or len(found) > 1 else out for each in found]
    for experiment, folder in zip(found, folders, strict=True):
        records.require_writable(folder)
        _require_own(experiment, folder)
        for panel in trained(experiment):
            plan.resolve(flags(experiment, panel, wishes), folder / panel.name, False, load)
    failures = []
    for experiment, folder in zip(found, folders, strict=True):
        console.print(f"{experiment.name}: {experiment.what}", highlight=False, markup=False)
        for panel in trained(experiment):
            # Where the paper prints numbers, those are shown beside what is measured, further below.
            alone = panel.published is None
            wanted = flags(experiment, panel, wishes)
            failures += compare.compare(wanted, folder / panel.name, jobs, False, console, load, shown=alone)
        finish(experiment, folder, console, differences(experiment, wishes, load), load)
    return failures


def _require_own(experiment: Experiment, folder: Path) -> None:
    own = {panel.name for panel in experiment.panels}
    if others := sorted({path.parent.name for path in folder.glob(f"*/{plan.FILE}")} - own):
        raise IsonomyError(
            f"{folder} holds sweeps that experiment {experiment.name!r} has not ({', '.join(others)}): "
            "name another folder with --out."
        )


def chosen(experiment: Experiment, names: Sequence[str] | None) -> Experiment:
    """An experiment with some of its methods, and others beside them.

    Args:
        experiment: As in its file.
        names: As the paper prints them or as ``isonomy compare`` has them, with options or without; methods that the
            paper has not are added. None for the paper's.

    Raises:
        IsonomyError: A name is neither's.
    """
    if names is None or not experiment.panels:
        return experiment
    every = {name: ours for panel in experiment.panels for name, ours in panel.methods.items()}
    wanted: dict[str, str] = {}
    for name in names:
        meant = {paper: ours for paper, ours in every.items() if name in (paper, ours)}
        meant = meant or {paper: ours for paper, ours in every.items() if name == name_of(ours)}
        wanted |= meant or _added(name, experiment, every)
    panels = [
        replace(
            panel,
            methods={name: panel.methods.get(name, ours) for name, ours in wanted.items() if _in(name, panel, every)},
        )
        for panel in experiment.panels
    ]
    return replace(experiment, panels=tuple(panels))


def trained(experiment: Experiment) -> list[Panel]:
    """The panels that have a method to be compared.

    Args:
        experiment: Whose.
    """
    return [panel for panel in experiment.panels if panel.methods]


def _in(name: str, panel: Panel, every: Mapping[str, str]) -> bool:
    return name in panel.methods or name not in every


def _added(name: str, experiment: Experiment, every: Mapping[str, str]) -> dict[str, str]:
    try:
        methods.find(name)
    except IsonomyError:
        raise unknown(f"method of experiment {experiment.name}, or of Isonomy", name, every) from None
    return {name: name}


def flags(experiment: Experiment, panel: Panel, wishes: Wishes) -> dict[str, Any]:
    """What ``plan.resolve`` makes a panel's sweep of.

    Args:
        experiment: The panel's.
        panel: One of its panels.
        wishes: What is otherwise than in the file.

    Raises:
        IsonomyError: A file of weights is needed and not there.
    """
    wanted = {
        # Papers print some methods in two rows.
        "methods": list(dict.fromkeys(panel.methods.values())),
        "seeds": wishes.seeds or experiment.seeds,
        "weights": _weights(experiment, panel, wishes.weights),
        **wishes.flags,
    }
    return {**panel.flags, **wanted, **({"epochs": wishes.epochs} if wishes.epochs is not None else {})}


def _weights(experiment: Experiment, panel: Panel, root: str | None) -> str | None:
    if panel.weights is None or root == RANDOM:
        return None
    way_out = f"or start from random weights with --weights-root {RANDOM}"
    names = " or ".join(panel.weights + ending for ending in ENDINGS)
    if root is None:
        raise IsonomyError(
            f"Experiment {experiment.name!r} starts from pretrained weights, and nothing is downloaded: "
            f"name the folder that holds {names} with --weights-root, {way_out}."
        )
    for ending in ENDINGS:
        if (path := Path(root) / (panel.weights + ending)).is_file():
            return str(path)
    raise IsonomyError(
        f"{Path(root) / (panel.weights + ENDINGS[0])} is missing, the weights of {panel.backbone!r} that experiment "
        f"{experiment.name!r} starts from: put {names} there, {way_out}."
    )


def differences(experiment: Experiment, wishes: Wishes, load: Load = data.load) -> list[str]:
    """What is otherwise than in the paper, in sentences.

    Args:
        experiment: With the methods that are run.
        wishes: What is otherwise than in the file.
        load: Finds data sets.
    """
    found = [" ".join(experiment.note.split())] if experiment.note else []
    if wishes.weights == RANDOM and any(panel.weights for panel in trained(experiment)):
        found.append("Networks start from random weights instead of pretrained ones.")
    if wishes.seeds not in (None, experiment.seeds):
        found.append(f"{plural(wishes.seeds or 0, 'seed')} instead of {experiment.seeds}.")
    for panel in trained(experiment):
        problem = load(panel.data)
        usual = panel.recipe.get("epochs", problem.recipe.epochs)
        if wishes.epochs not in (None, usual):
            found.append(f"{panel.name}: {plural(wishes.epochs or 0, 'epoch')} instead of {usual}.")
        found += problem.notes
    if experiment.mini:
        found.append("Data and networks are small ones that stand for the paper's: only overall scores say anything.")
    return list(dict.fromkeys(found))


def finish(
    experiment: Experiment, out: Path, console: Console, lines: Sequence[str], load: Load = data.load
) -> measured.Measured:
    """Prints and writes what the sweeps of an experiment have come to.

    Args:
        experiment: Which one.
        out: Its folder.
        console: Where it is printed.
        lines: What is otherwise than in the paper.
        load: Finds data sets.
    """
    found = measured.collect(experiment, out, load)
    say = [*lines]
    if waiting := measured.missing(found):
        say.append(f"Not all runs are finished, {len(waiting)} are missing: {', '.join(waiting)}.")
    if experiment.kind == CLAIM and not waiting:
        say += _verdict(found)
    written = tables.compare(found)
    for table in written:
        if table.panel.published is not None:
            for part in tables.drawn(table, console.width):
                console.print(part)
        say += table.lines
    if written:
        tables.write(written, found, say, out)
    for line in say:
        console.print(line, highlight=False, markup=False)
    if experiment.figure is not None:
        from isonomy.bench.experiments import figures  # noqa: PLC0415 - with matplotlib, which takes a second

        for path in figures.draw(experiment, out, load):
            console.print(f"{path}", highlight=False, markup=False, soft_wrap=True)
    return found


def _verdict(found: measured.Measured) -> list[str]:
    """What became of a claim, in sentences."""
    from isonomy.bench.experiments.claims import CHECKS, Runs  # noqa: PLC0415 - with SciPy, which takes a second

    runs = {panel.name: Runs(found.sweeps[panel.name], panel.methods) for panel in found.experiment.panels}
    verdict = CHECKS[found.experiment.check](runs)
    outcome = {True: "It held here.", False: "It did not hold here.", None: "It cannot be judged."}[verdict.held]
    return [f"Claim: {found.experiment.claim}", *verdict.measured, outcome]
