"""The numbers that the papers print, and what is measured of each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from isonomy.bench.data import Problem
from isonomy.bench.experiments.schema import Experiment, Panel
from isonomy.errors import IsonomyError

FILE = Path(__file__).parent / "published.csv"
OVERALL = ("Delta_p", "Delta_m")
MEANS = ("acc_avg", "acc_mean")
SECONDS = "time_s_per_iter"
CHANGE, WEIGHT, ACCURACY, ERROR = "_abs_change", "_lambda", "acc_", "MAE_"
# As IMTL's tables call tasks and metrics.
TASKS = {"sem": "seg", "norm": "normal"}
METRICS = {("depth", "L1"): "AErr", ("normal", "cos"): "cosine"}


@dataclass(frozen=True)
class Number:
    """A line of ``published.csv``, digits as printed.

    Attributes:
        experiment: Where it stands.
        dataset: As the paper calls it.
        architecture: Likewise.
        method: Likewise.
        metric: Its id.
        value: Of the mean, where there are several runs.
        std: Over runs; empty where none is printed.
    """

    experiment: str
    dataset: str
    architecture: str
    method: str
    metric: str
    value: str
    std: str

    @property
    def decimals(self) -> int:
        """How many are printed."""
        return len(self.value.partition(".")[2])


@dataclass(frozen=True)
class Measure:
    """What stands for a published metric among what a sweep measures.

    Attributes:
        kind: ``"metric"``, ``"overall"``, ``"mean"`` (of all tasks' first metrics), ``"weight"`` (of a task, over
            training) or ``"seconds"`` (a step).
        task: Whose; empty where it is not a task's.
        metric: Of the task.
        change: Whether it is by how much that differs from the panel without a suffix.
    """

    kind: str
    task: str = ""
    metric: str = ""
    change: bool = False


@cache
def numbers() -> tuple[Number, ...]:
    """All of them, in the order of the papers."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(Number(**line) for line in csv.DictReader(file))


def of(experiment: Experiment) -> list[Number]:
    """An experiment's own numbers.

    Args:
        experiment: On the paper's data or on embedded ones.
    """
    name = experiment.name.partition("@")[0]
    return [number for number in numbers() if number.experiment == name]


def of_panel(experiment: Experiment, panel: Panel) -> list[Number]:
    """The numbers that a panel stands beside.

    Args:
        experiment: The panel's.
        panel: One of its panels.
    """
    if panel.published is None:
        return []
    where = panel.published.experiments or (experiment.name.partition("@")[0],)
    # Of another experiment's table only what this one draws.
    drawn = {experiment.single, *panel.methods} if panel.published.experiments else None
    place = (panel.published.dataset, panel.published.architecture)
    others = [other.suffix for other in experiment.panels if other.published == panel.published]
    chosen = {
        (number.method, number.metric): number
        for number in numbers()
        if number.experiment in where
        and (drawn is None or number.method in drawn)
        and (number.dataset, number.architecture) == place
        and max((suffix for suffix in others if suffix in number.metric), key=len, default="") == panel.suffix
    }
    return list(chosen.values())


def measure(metric: str, panel: Panel, problem: Problem) -> Measure:
    """What is measured for a metric of ``published.csv``.

    Args:
        metric: Its id.
        panel: Whose numbers they are.
        problem: The panel's data set.

    Raises:
        IsonomyError: Nothing on that data set is.
    """
    plain = metric.removesuffix(CHANGE).removesuffix(panel.suffix)
    kinds = {**dict.fromkeys(OVERALL, "overall"), **dict.fromkeys(MEANS, "mean"), SECONDS: "seconds"}
    found = Measure(kinds[plain]) if plain in kinds else _of_task(plain, metric, problem)
    return replace(found, change=metric.endswith(CHANGE))


def _of_task(plain: str, metric: str, problem: Problem) -> Measure:
    tasks = [task.name for task in problem.tasks]
    if plain.endswith(WEIGHT):
        return Measure("weight", _one(plain.removesuffix(WEIGHT), tasks, metric, problem))
    task, _, name = plain.partition("_")
    task = TASKS.get(task, task)
    if plain.startswith(ERROR):
        # Energies of orbitals are eps_HOMO and eps_LUMO.
        task, name = plain.removeprefix(ERROR).removeprefix("eps_").lower(), "mae"
    if plain.startswith(ACCURACY):
        domain = plain.removeprefix(ACCURACY).lower()
        # Papers say Artistic for the folder Art, and Real for Real_World.
        task = next((task for task in tasks if task.startswith(domain) or domain.startswith(task)), domain)
        name = "accuracy"
    task = _one(task, tasks, metric, problem)
    known = [each.name for each in next(each for each in problem.tasks if each.name == task).metrics]
    return Measure("metric", task, _one(METRICS.get((task, name), name), known, metric, problem))


def _one(name: str, known: Sequence[str], metric: str, problem: Problem) -> str:
    if name not in known:
        raise IsonomyError(
            f"Metric {metric!r} of published.csv has no counterpart on data set {problem.name!r}: "
            f"{name!r} is none of {', '.join(known)}."
        )
    return name
