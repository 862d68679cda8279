"""What there is: methods, data sets, architectures, backbones and experiments, for ``isonomy list``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import isonomy
from isonomy.bench import backbones
from isonomy.bench.architectures import ARCHITECTURES, fits


def _methods() -> list[dict[str, Any]]:
    return [
        {
            "name": method.name,
            "title": method.title,
            "kind": method.kind,
            "paper": method.paper,
            "year": method.year,
            "options": {
                name: None if value is inspect.Parameter.empty else value for name, value in method.options.items()
            },
            "levels": method.levels,
            "needs": method.needs,
            "summary": method.summary,
        }
        for method in isonomy.methods("*")
    ]


def _data() -> list[dict[str, Any]]:
    from isonomy.bench import data  # noqa: PLC0415

    return [
        {
            "name": problem.name,
            "version": problem.version,
            "tasks": {
                task.name: {metric.name: "up" if metric.up else "down" for metric in task.metrics}
                for task in problem.tasks
            },
            "architectures": problem.architectures,
            "backbones": problem.backbones,
            "levels": problem.levels,
            "options": {name: getattr(problem, name) for name in getattr(problem, "options", ())},
            "recipe": asdict(problem.recipe),
            "summary": problem.summary,
        }
        for problem in map(data.load, data.NAMES)
    ]


def _architectures() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "levels": entry.levels,
            "backbones": [each for each in backbones.CATALOGUE if fits(name, each)] if entry.network else [],
            "summary": entry.summary,
        }
        for name, entry in ARCHITECTURES.items()
    ]


def _backbones() -> list[dict[str, Any]]:
    return [
        {"name": name, "head": entry.head, "multiple": entry.multiple, "summary": entry.summary}
        for name, entry in backbones.CATALOGUE.items()
    ]


def _experiments() -> list[dict[str, Any]]:
    from isonomy.bench.experiments.catalogue import summaries  # noqa: PLC0415

    return summaries()


# Of each kind its entries, with ``name`` and ``summary`` and whatever programs may want.
LISTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "methods": _methods,
    "data": _data,
    "architectures": _architectures,
    "backbones": _backbones,
    "experiments": _experiments,
}
