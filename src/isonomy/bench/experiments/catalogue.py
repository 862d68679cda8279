"""Finds experiments by their names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from isonomy.bench import data
from isonomy.bench.experiments import published
from isonomy.bench.experiments.schema import CLAIM, Experiment, Panel, experiment
from isonomy.bench.options import name_of
from isonomy.errors import IsonomyError, unknown

HERE = Path(__file__).parent
ALL, MINI = "all", "@mini"


def names() -> list[str]:
    """Of all experiments, paper by paper, tables and figures in the order of their numbers."""
    found = [path.relative_to(HERE).with_suffix("").as_posix() for path in HERE.glob("*/*.toml")]
    return sorted(found, key=_by_number)


def _by_number(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)


def find(pattern: str) -> list[Experiment]:
    """The experiments of a name.

    Args:
        pattern: A name; a pattern such as ``"dbmtl/*"``; ``"all"``. Followed by ``"@mini"``, on the embedded data.

    Raises:
        IsonomyError: There is none, or it is not made for the embedded data.
    """
    plain = pattern.removesuffix(MINI)
    wanted = [name for name in names() if plain == ALL or fnmatchcase(name, plain)]
    if not wanted:
        raise unknown("experiment", plain, [ALL, *names()])
    found = [load(name) for name in wanted]
    if plain == pattern:
        return found
    # A pattern takes what there is.
    small = [on_embedded(each) for each in found if len(wanted) == 1 or (each.panels and each.kind != CLAIM)]
    if not small:
        raise IsonomyError(f"No experiment {plain!r} trains anything: leave {MINI} out.")
    return small


@cache
def load(name: str) -> Experiment:
    """The experiment of a name.

    Args:
        name: One of ``names``.

    Raises:
        IsonomyError: Its file cannot be used.
    """
    return experiment(name, _read(HERE / f"{name}.toml"), _read(HERE / "methods.toml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise IsonomyError(f"{path} is not TOML ({error}): correct it.") from None


def on_embedded(found: Experiment) -> Experiment:
    """An experiment on embedded data that mirror the paper's.

    Args:
        found: As in its file.

    Raises:
        IsonomyError: Nothing stands for one of its data sets or networks.
    """
    table = _read(HERE / "mini.toml")
    if found.kind == CLAIM:
        raise IsonomyError(f"Experiment {found.name!r} is on embedded data as it is: leave {MINI} out.")
    if not found.panels:
        raise IsonomyError(f"Experiment {found.name!r} trains nothing: leave {MINI} out.")
    panels = [_embedded(panel, table) for panel in found.panels if panel.mini is not False]
    return replace(found, name=found.name + MINI, panels=tuple(panels))


def _embedded(panel: Panel, table: Mapping[str, Mapping[str, str]]) -> Panel:
    own = panel.mini if isinstance(panel.mini, Mapping) else {}
    architecture, backbone = (
        panel.architecture and name_of(panel.architecture),
        panel.backbone and name_of(panel.backbone),
    )
    network = "/".join(filter(None, [architecture, backbone]))
    chosen: dict[str, Any] = {"architecture": None, "backbone": None}
    if "data" not in own:
        if name_of(panel.data) not in table["data"]:
            raise unknown(
                f"data set of mini.toml, which panel {panel.name!r} wants", name_of(panel.data), table["data"]
            )
        chosen["data"] = table["data"][name_of(panel.data)]
    if "architecture" not in own and network:
        stand_in = next((made for pattern, made in table["networks"].items() if fnmatchcase(network, pattern)), None)
        if stand_in is None:
            raise unknown(f"network of mini.toml, which panel {panel.name!r} wants", network, table["networks"])
        chosen["architecture"], _, chosen["backbone"] = stand_in.partition("/")
        chosen["backbone"] = chosen["backbone"] or None
    # The embedded data's own recipe, which own rates of methods fit, and networks that no pretrained weights are for.
    chosen["methods"] = {name: _without_rate(ours) for name, ours in panel.methods.items()}
    return replace(panel, **{"recipe": {}, "head": None, "weights": None, "level": None, **chosen, **own})


def _without_rate(method: str) -> str:
    """A method without the learning rate that it has in a paper's recipe."""
    options = [option for option in method.partition(":")[2].split(",") if not option.startswith("own_lr=")]
    return ":".join(filter(None, [name_of(method), ",".join(options)]))


def cells(panel: Panel) -> int:
    """How many trainings a panel makes for every seed.

    Args:
        panel: Of an experiment.
    """
    tasks = panel.tasks or data.load(panel.data).tasks
    return len(tasks) + len(set(panel.methods.values()))


def summaries() -> list[dict[str, Any]]:
    """All experiments, for ``isonomy list``."""
    return [_summary(load(name)) for name in names()]


def _summary(found: Experiment) -> dict[str, Any]:
    count = sum(map(cells, found.panels)) * found.seeds
    rows = len(published.of(found))
    facts = [f"{rows} published numbers" if rows else "", f"{count} runs" if count else ""]
    return {
        "name": found.name,
        "kind": found.kind,
        "what": found.what,
        "published": rows,
        "panels": [panel.name for panel in found.panels],
        "cells": count,
        "summary": f"{found.kind:<7}  {'; '.join(filter(None, [found.what, *facts]))}",
    }
