"""What a sweep is going to do: its cells, and whether they fit what a folder already holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import inf
from pathlib import Path
from typing import Any

from isonomy.bench import architectures, choice, data, hardware, methods, records
from isonomy.bench.architectures import Design
from isonomy.bench.cell import Cell, single
from isonomy.bench.recipe import Recipe
from isonomy.errors import IsonomyError, unknown

FILE = "plan.json"
DEFAULT_METHODS = ("ew", "uw", "imtl", "db_mtl")
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
        recipe: How every cell is trained.
        level: Where all methods measure gradients; None for each method's own choice.
        device: ``"cpu"`` or ``"cuda"``.
        methods: Names, with options if wanted, in the order of printing.
        seeds: How many, from 0.
        trials: Trainings of every grid search; None for a sweep without one.
        backbone: Name of the network's encoder; None where the data set brings its own.
        head: Name of the heads; None for the backbone's usual ones.
        weights: File with the backbone's weights; None for random ones.
        baseline: What single-task networks are: ``"matched"``, of the same architecture, or ``"plain"``.
        scales: What the losses of some tasks are multiplied by, as if they were measured in another unit.
        observe: What is measured beside the training of balancers: ``"feature_distance"``, or None.
        devices: On how many devices of a machine each cell trains.
        precision: Of Fabric: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.
        samples: How many samples each split has, of data whose files the user has.
    """

    data: str
    data_version: int
    architecture: str
    tasks: tuple[str, ...]
    recipe: Recipe
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
    scales: dict[str, float] = field(default_factory=dict)
    observe: str | None = None
    devices: int = 1
    precision: str = "32-true"
    samples: dict[str, int] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, by name, as flags have it and files."""
        found = asdict(self)
        recipe = found.pop("recipe")
        return {**found, **recipe}


def resolve(flags: Mapping[str, Any], out: Path, resume: bool, load: Load = data.load) -> Plan:
    """The plan that flags ask for, joined with the one stored in the folder.

    Args:
        flags: ``data``, ``architecture``, ``backbone``, ``head``, ``weights``, ``baseline``, ``tasks``, ``methods``,
            ``seeds``, ``level``, ``trials``, ``scales``, ``observe``, those of ``hardware.chosen`` and those of a
            ``Recipe``; None where the user gave none.
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
        given = {**stored.facts, **given}
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
        recipe = Recipe(**{entry.name: stored.pop(entry.name) for entry in fields(Recipe)})
        names = {name: tuple(stored[name]) for name in ("tasks", "methods")}
        plan = Plan(**{**stored, **names, "recipe": recipe})
    except (TypeError, KeyError):
        raise records.damaged(path, "keys are missing or unknown", remedy) from None
    if not (isinstance(plan.seeds, int) and isinstance(recipe.epochs, int)):
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
    for name in ("seeds", "trials"):
        number = given.get(name)
        if number is not None and number < 1:
            raise IsonomyError(f"--{name} is {number}: it must be at least 1.")
    tasks = tuple(task.name for task in data.select(problem, given.get("tasks")))
    wanted = choice.methods(given.get("methods", DEFAULT_METHODS), level, problem, network, tasks)
    recipe = problem.recipe.changed(given)
    choice.require_splits(recipe, wanted, problem)
    return Plan(
        data=problem.name,
        data_version=problem.version,
        **asdict(network),
        baseline=baseline,
        tasks=tasks,
        recipe=recipe,
        level=level,
        **hardware.chosen(given, wanted, problem),
        observe=choice.observer(given.get("observe"), wanted, problem, network),
        methods=wanted,
        seeds=given.get("seeds", 3),
        trials=choice.trials(given.get("trials"), wanted),
        scales=_scales(given.get("scales") or {}, tasks),
        samples={split: len(names) for split, names in problem.samples.items()},
    )


def _scales(given: Mapping[str, float], tasks: Sequence[str]) -> dict[str, float]:
    for task, scale in given.items():
        if task not in tasks:
            raise unknown("task of --scales", task, tasks)
        if not 0 < scale < inf:
            raise IsonomyError(f"--scales has {scale:g} for task {task!r}: it must be positive.")
    return dict(given)


def _joined(stored: Plan, wanted: Plan, out: Path) -> Plan:
    """The stored plan with the methods and seeds that are new; everything else has to be the same."""
    every = tuple(dict.fromkeys([*stored.methods, *wanted.methods]))
    joined = replace(wanted, methods=every, seeds=max(stored.seeds, wanted.seeds))
    if wanted.trials is None:
        joined = replace(joined, trials=stored.trials)
    same = replace(stored, methods=joined.methods, seeds=joined.seeds)
    if stored.trials is None:
        same = replace(same, trials=joined.trials)
    _require_same(same.facts, joined.facts, out)
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
        **asdict(plan.recipe),
        **{name: getattr(plan, name) for name in ("device", "devices", "precision")},
    }
    singles = [(single(task), "ew", [task]) for task in plan.tasks]
    multi = [(method, method, list(plan.tasks)) for method in plan.methods]
    result = []
    for seed in range(plan.seeds):
        for name, trained_by, tasks in singles + multi:
            named = methods.find(trained_by)
            own = {
                "tasks": tasks,
                "level": choice.usable_level(named.method, named.level or plan.level, levels),
                "seed": seed,
                "scales": [plan.scales.get(task, 1.0) for task in tasks],
                "observe": plan.observe if name == trained_by and named.method.stages else None,
            }
            design = asdict(network if name == trained_by else alone)
            result.append(Cell(name, seed, {**common, **design, **own, **_trained_by(named, plan, seed)}))
    return result


def _trained_by(named: methods.Named, plan: Plan, seed: int) -> dict[str, Any]:
    """The part of a cell's configuration that says how: its balancer and procedure, with their options."""
    method = named.method
    if method.kind != "procedure":
        options = {**({"seed": seed} if "seed" in method.options else {}), **named.options}
        return {"balancer": method.name, "options": options, "procedure": None}
    procedure = {"name": method.name, **method.options, **named.options}
    if method.name == choice.SEARCH:
        procedure["trials"] = named.options.get("trials", plan.trials)
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
    wanted = tuple(dict.fromkeys(["ew", *plan.methods]))
    every = cells(replace(plan, methods=wanted, seeds=1, observe=None), load)
    # A search has no step of its own: it makes whole trainings of plain steps.
    return [cell for cell in every if cell.method in wanted and cell.procedure != choice.SEARCH]


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
