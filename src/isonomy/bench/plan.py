"""What a sweep is going to do: its cells, and whether they fit what a folder already holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from isonomy import catalogue
from isonomy.bench import architectures, choice, data, records
from isonomy.bench.architectures import Design
from isonomy.errors import IsonomyError, unknown

SINGLE = "single_task"
FILE = "plan.json"
DEFAULT_METHODS = ("ew", "uw", "imtl", "db_mtl")
DEVICES = ("auto", "cpu", "cuda")
LEVELS = (architectures.FEATURES, architectures.PARAMETERS, architectures.LAST_LAYER)
# What single-task training means for an architecture: one task in the same architecture, or in a plain encoder with a
# head, which flatters an architecture by what its other parts are worth.
BASELINES = ("matched", "plain")

Load = Callable[[str], data.Problem]


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes:
        data: Name of the data set.
        data_version: Its version.
        architecture: Name of the network.
        tasks: Names, in the data set's order.
        epochs: Budget of every cell.
        level: Where all methods measure gradients; None for each method's own choice.
        device: ``"cpu"`` or ``"cuda"``.
        methods: Names, in the order of printing.
        seeds: How many, from 0.
        trials: Trainings of every grid search; None for a sweep without one.
        backbone: Name of the network's encoder; None where the data set brings its own.
        head: Name of the heads; None for the backbone's usual ones.
        weights: File with the backbone's weights; None for random ones.
        baseline: What single-task networks are: ``"matched"``, of the same architecture, or ``"plain"``.
    """

    data: str
    data_version: int
    architecture: str
    tasks: tuple[str, ...]
    epochs: int
    level: str | None
    device: str
    methods: tuple[str, ...]
    seeds: int
    # What follows a plan of an earlier version does not say.
    trials: int | None = None
    backbone: str | None = None
    head: str | None = None
    weights: str | None = None
    baseline: str = BASELINES[0]


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        method: Name of the method, or ``single_task-<task>``.
        seed: Of weights, data order and the method's own draws.
        config: Everything that determines its numbers; stored with them.
    """

    method: str
    seed: int
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """``method/seed``, which is also its folder."""
        return f"{self.method}/{self.seed}"

    @property
    def tasks(self) -> list[str]:
        """The tasks it trains."""
        return list(self.config["tasks"])

    @property
    def design(self) -> Design:
        """Its network."""
        return Design(**{field.name: self.config[field.name] for field in fields(Design)})

    @property
    def procedure(self) -> str | None:
        """The procedure it is trained by; None for a method that is a balancer."""
        return self.config["procedure"] and str(self.config["procedure"]["name"])

    @property
    def waits(self) -> bool:
        """Whether it learns from the finished single-task runs of its seed."""
        return self.procedure in choice.AFTER_SINGLE

    @property
    def length(self) -> int:
        """How many epochs it trains in all."""
        return int(self.config["epochs"] * (self.config["procedure"] or {}).get("trials", 1))


def single(task: str) -> str:
    """The method name of a task's single-task training."""
    return f"{SINGLE}-{task}"


def resolve(flags: Mapping[str, Any], out: Path, resume: bool, load: Load = data.load) -> Plan:
    """The plan that flags ask for, joined with the one stored in the folder.

    Args:
        flags: ``data``, ``architecture``, ``backbone``, ``head``, ``weights``, ``baseline``, ``tasks``, ``methods``,
            ``seeds``, ``epochs``, ``level``, ``device`` and ``trials``; None where the user gave none.
        out: The sweep's folder.
        resume: Whether what the user left out comes from the folder; else from the defaults.
        load: Finds data sets.

    Raises:
        IsonomyError: Something is unknown, does not go together, or differs from what the folder holds.
    """
    path = out / FILE
    stored = read(out) if path.exists() else None
    if resume and stored is None:
        raise IsonomyError(f"There is no sweep to resume in {out}: {FILE} is missing; leave --resume out to start one.")
    given = {name: value for name, value in flags.items() if value is not None}
    if resume and stored is not None:
        given = {**asdict(stored), **given}
    wanted = _validated(given, load)
    return wanted if stored is None else _joined(stored, wanted, out)


def read(out: Path) -> Plan:
    """The plan stored in a folder.

    Args:
        out: The sweep's folder.

    Raises:
        IsonomyError: There is none, or it is damaged.
    """
    path = out / FILE
    if out.exists() and not out.is_dir():
        raise IsonomyError(f"{out} is a file: name the folder of a sweep.")
    if not path.exists():
        raise IsonomyError(f"There is no sweep in {out}: {FILE} is missing; `isonomy compare --out {out}` makes one.")
    remedy = f"delete {path} and start the sweep with its flags again, the finished cells stay"
    stored = records.read_json(path, remedy)
    try:
        plan = Plan(**{**stored, "tasks": tuple(stored["tasks"]), "methods": tuple(stored["methods"])})
    except (TypeError, KeyError):
        raise records.damaged(path, "keys are missing or unknown", remedy) from None
    if not (isinstance(plan.seeds, int) and isinstance(plan.epochs, int)):
        raise records.damaged(path, "seeds and epochs are no numbers", remedy)
    return plan


def _validated(given: Mapping[str, Any], load: Load) -> Plan:
    problem = load(given.get("data", "digits"))
    network = choice.design(given, problem)
    baseline = given.get("baseline", BASELINES[0])
    if baseline not in BASELINES:
        raise unknown("baseline", baseline, BASELINES)
    level = given.get("level")
    if level is not None and level not in LEVELS:
        raise unknown("level", level, LEVELS)
    levels = choice.levels(problem, network)
    if level is not None and level not in levels:
        raise IsonomyError(
            f"{problem.name!r} with architecture {network.architecture!r} has no level {level!r}: "
            f"use --level {' or '.join(levels)}."
        )
    for name in ("seeds", "epochs", "trials"):
        number = given.get(name)
        if number is not None and number < 1:
            raise IsonomyError(f"--{name} is {number}: it must be at least 1.")
    tasks = tuple(task.name for task in data.select(problem, given.get("tasks")))
    methods = choice.methods(given.get("methods", DEFAULT_METHODS), level, problem, network)
    return Plan(
        data=problem.name,
        data_version=problem.version,
        **asdict(network),
        baseline=baseline,
        tasks=tasks,
        epochs=given.get("epochs", problem.epochs),
        level=level,
        device=_device(given.get("device", "cpu")),
        methods=methods,
        seeds=given.get("seeds", 3),
        trials=choice.trials(given.get("trials"), methods),
    )


def _device(name: str) -> str:
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise IsonomyError("Device 'cuda' is not available here: use --device cpu, or auto.")
    return name if name != "auto" else "cuda" if available else "cpu"


def _joined(stored: Plan, wanted: Plan, out: Path) -> Plan:
    """The stored plan with the methods and seeds that are new; everything else has to be the same."""
    methods = tuple(dict.fromkeys([*stored.methods, *wanted.methods]))
    joined = replace(wanted, methods=methods, seeds=max(stored.seeds, wanted.seeds))
    if wanted.trials is None:
        joined = replace(joined, trials=stored.trials)
    same = replace(stored, methods=joined.methods, seeds=joined.seeds)
    if stored.trials is None:
        same = replace(same, trials=joined.trials)
    _require_same(asdict(same), asdict(joined), out)
    return joined


def _require_same(found: Mapping[str, Any], wanted: Mapping[str, Any], out: Path, where: str = "") -> None:
    for name in dict.fromkeys([*wanted, *found]):
        before, now = found.get(name), wanted.get(name)
        if before != now:
            shown = [", ".join(value) if isinstance(value, (list, tuple)) else value for value in (before, now)]
            raise IsonomyError(
                f"{where or out} was made with {name} = {shown[0]}, this sweep has {shown[1]}: "
                f"choose another --out, or delete {where or out}."
            )


def cells(plan: Plan, load: Load = data.load) -> list[Cell]:
    """All trainings of a sweep, seed by seed, single-task ones first.

    Args:
        plan: The sweep.
        load: Finds data sets.
    """
    problem = load(plan.data)
    network = Design(plan.architecture, plan.backbone, plan.head, plan.weights)
    levels = choice.levels(problem, network)
    alone = network if plan.baseline == "matched" else replace(network, architecture="hps")
    common = {
        "data": plan.data,
        "data_version": plan.data_version,
        "epochs": plan.epochs,
        "learning_rate": problem.learning_rate,
        "schedule": problem.schedule,
        "device": plan.device,
    }
    singles = [(single(task), "ew", [task]) for task in plan.tasks]
    multi = [(method, method, list(plan.tasks)) for method in plan.methods]
    result = []
    for seed in range(plan.seeds):
        for name, trained_by, tasks in singles + multi:
            method = catalogue.find(trained_by)
            own = {"tasks": tasks, "level": choice.usable_level(method, plan.level, levels), "seed": seed}
            design = asdict(network if name == method.name else alone)
            result.append(Cell(name, seed, {**common, **design, **own, **_trained_by(method, plan, seed)}))
    return result


def _trained_by(method: catalogue.Method, plan: Plan, seed: int) -> dict[str, Any]:
    """The part of a cell's configuration that says how: its balancer and procedure, with their options."""
    if method.kind != "procedure":
        options = {"seed": seed} if "seed" in method.options else {}
        return {"balancer": method.name, "options": options, "procedure": None}
    procedure = {"name": method.name, **method.options}
    if method.name == choice.SEARCH:
        procedure["trials"] = plan.trials
    # Weights are what a procedure learns, if it learns a balance at all.
    return {"balancer": "fixed", "options": {"weights": [1.0] * len(plan.tasks)}, "procedure": procedure}


def finished_single(out: Path, task: str, cell: Cell) -> Path:
    """The folder of a task's single-task run, of the same seed as a cell that learns from it.

    Args:
        out: The sweep's folder.
        task: Name.
        cell: Which learns from it.

    Raises:
        IsonomyError: The run is not finished.
    """
    folder = out / single(task) / str(cell.seed)
    if records.test_metrics(folder) is None:
        raise IsonomyError(
            f"{cell.name} learns from {single(task)}/{cell.seed}, which has not finished: "
            "see why, and start the same command again."
        )
    return folder


def timed(plan: Plan, load: Load = data.load) -> list[Cell]:
    """One multi-task cell a method for the timing pass, with plain summing as the reference.

    Args:
        plan: The sweep.
        load: Finds data sets.
    """
    methods = tuple(dict.fromkeys(["ew", *plan.methods]))
    every = cells(replace(plan, methods=methods, seeds=1), load)
    # A search has no step of its own: it makes whole trainings of plain steps.
    return [cell for cell in every if cell.method in methods and cell.procedure != choice.SEARCH]


def survey(out: Path, planned: Sequence[Cell]) -> list[Cell]:
    """The planned cells that are not finished, after a look at everything the folder holds of them.

    Args:
        out: The sweep's folder.
        planned: All cells of the sweep.

    Raises:
        IsonomyError: A file is damaged, or a cell was trained with another configuration.
    """
    unfinished = []
    for cell in planned:
        folder = out / cell.name
        if blocked := [path for path in (folder.parent, folder) if path.exists() and not path.is_dir()]:
            raise IsonomyError(f"{blocked[0]} is in the way of a run's folder: move it, or choose another --out.")
        if (folder / records.CONFIG).exists():
            config = records.read_json(folder / records.CONFIG)
            _require_same(config, cell.config, out, where=str(folder))
        elif (folder / records.CHECKPOINT).exists():
            raise IsonomyError(
                f"{folder / records.CONFIG} is missing beside a checkpoint: delete the folder {folder} to train again."
            )
        records.load_checkpoint(folder)
        if records.test_metrics(folder) is None:
            unfinished.append(cell)
    return unfinished
