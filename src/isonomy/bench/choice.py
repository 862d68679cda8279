"""Which methods can be compared on which data set, and where they take their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from isonomy import catalogue
from isonomy.bench import architectures, data
from isonomy.bench.architectures import ARCHITECTURES, FEATURES, LAST_LAYER, PARAMETERS, Design
from isonomy.bench.backbones import CATALOGUE
from isonomy.bench.backbones.heads import HEADS
from isonomy.bench.cell import folder
from isonomy.bench.methods import find, require
from isonomy.bench.options import name_of
from isonomy.bench.recipe import BEST_VAL, Recipe
from isonomy.errors import IsonomyError, unknown

SEARCH = "grid_search"
OBSERVERS = ("feature_distance",)


def design(given: Mapping[str, Any], problem: data.Problem) -> Design:
    """The network that flags ask for.

    Args:
        given: ``architecture``, ``backbone``, ``head`` and ``weights``, where the user gave them.
        problem: The data set.

    Raises:
        IsonomyError: One is unknown, or they do not go together or with the data set.
    """
    architecture = given.get("architecture", problem.architectures[0])
    name = name_of(architecture)
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, problem.architectures)
    if name not in problem.architectures:
        raise IsonomyError(
            f"Architecture {name!r} does not fit data set {problem.name!r}: "
            f"use {' or '.join(map(repr, problem.architectures))}."
        )
    if not problem.backbones:
        for flag in ("backbone", "head", "weights"):
            if given.get(flag) is not None:
                raise IsonomyError(f"Data set {problem.name!r} brings its own network: leave --{flag} out.")
        return Design(architecture)
    backbone = given.get("backbone")
    if backbone is None:
        backbone = next(each for each in problem.backbones if architectures.fits(architecture, each))
    weights = given.get("weights")
    network = Design(architecture, backbone, given.get("head"), weights and str(Path(weights).absolute()))
    architectures.require(network, problem.size)
    if name_of(backbone) not in problem.backbones:
        raise IsonomyError(
            f"Backbone {backbone!r} does not fit data set {problem.name!r}: use {' or '.join(problem.backbones)}."
        )
    if weights is not None and not Path(weights).is_file():
        raise IsonomyError(f"--weights {weights} is not a file: name a file with weights of {backbone!r}.")
    return network


def levels(problem: data.Problem, design: Design) -> tuple[str, ...]:
    """Where gradients can be measured with a network on a data set.

    Args:
        problem: The data set.
        design: The network.
    """
    return tuple(level for level in design.kind.levels if level in problem.levels)


def methods(
    names: Sequence[str], level: str | None, problem: data.Problem, design: Design, tasks: Sequence[str]
) -> tuple[str, ...]:
    """The methods of these names.

    Args:
        names: Of the catalogue, or hybrids; ``["all"]`` for the whole catalogue but for what cannot be compared here.
        level: Where all of them measure gradients; None for each method's own choice.
        problem: The data set.
        design: The network.
        tasks: Names of the tasks that are balanced.

    Raises:
        IsonomyError: A name is unknown or given twice, or a method cannot be compared on this data set and network.
    """
    if list(names) == ["all"]:
        return tuple(m.name for m in catalogue.methods("*") if _obstacle(m, level, problem, design) is None)
    if not names:
        raise IsonomyError("--methods is empty: name at least one, as `isonomy list methods` shows them.")
    folders: dict[str, str] = {}
    for name in names:
        named = find(name)
        if (other := folders.setdefault(folder(name), name)) is not name or names.count(name) > 1:
            raise IsonomyError(f"Method {name!r} is given twice, or cannot be told from {other!r}: name each once.")
        if named.level is not None and named.level not in (possible := levels(problem, design)):
            raise unknown(f"level of {problem.name} with {design.architecture}", named.level, possible)
        if obstacle := _obstacle(named.method, named.level or level, problem, design):
            raise IsonomyError(f"Method {name!r} {obstacle}")
        require(name, tasks)
    return tuple(names)


def require_splits(recipe: Recipe, methods: Sequence[str], problem: data.Problem) -> None:
    """Refuses what needs a validation split where there is none.

    Args:
        recipe: Of the sweep.
        methods: Of the sweep.
        problem: The data set.

    Raises:
        IsonomyError: Something does.
    """
    if "val" in problem.splits:
        return
    way_out = f"let data set {problem.name!r} keep some training images for validation (split=honest)"
    if recipe.select == BEST_VAL or name_of(recipe.schedule) == "plateau":
        what = f"--select {BEST_VAL}" if recipe.select == BEST_VAL else "schedule 'plateau'"
        raise IsonomyError(f"{what} needs a validation split: {way_out}, or choose another.")
    for name in methods:
        if "validation" in find(name).method.needs:
            raise IsonomyError(f"Method {name!r} needs a validation split: {way_out}, or leave the method out.")


def _obstacle(method: catalogue.Method, level: str | None, problem: data.Problem, design: Design) -> str | None:
    """Why a method cannot be compared on a data set and network, after "Method 'name' "; None if it can."""
    possible = levels(problem, design)
    if method.name == SEARCH and find_spec("optuna") is None:
        return "needs Optuna: pip install 'isonomy[tune]', or leave the method out."
    if usable_level(method, level, possible) is None:
        wanted = repr(level) if level else " or ".join(map(repr, possible))
        usable = [each for each in possible if usable_level(method, each, possible)]
        way_out = f"use --level {' or '.join(usable)}, or " if usable else ""
        return f"cannot measure gradients at level {wanted}: {way_out}leave the method out."
    if (method.name == "url" or "features" in method.options) and not (FEATURES in possible and _one_feature(design)):
        work = "distils" if method.name == "url" else "turns"
        return f"{work} the one feature that all heads read, which this network has not: leave the method out."
    if method.stages and "validation" in method.needs and any(task.score is None for task in problem.tasks):
        return f"needs a validation score from 0 to 1, which data set {problem.name!r} has not: leave the method out."
    return None


def _one_feature(design: Design) -> bool:
    """Whether all heads read one tensor."""
    if design.backbone is None:
        return True
    head = HEADS[design.head or CATALOGUE[name_of(design.backbone)].head]
    return name_of(design.architecture) == "hps" and len(head.reads) == 1


def observer(name: str | None, methods: Sequence[str], problem: data.Problem, design: Design) -> str | None:
    """What is measured beside the training of every method.

    Args:
        name: One of ``OBSERVERS``; None for nothing.
        methods: Of the sweep.
        problem: The data set.
        design: The network.

    Raises:
        IsonomyError: There is no such observer, or it cannot look at a method or the network.
    """
    if name is None:
        return None
    if name not in OBSERVERS:
        raise unknown("observer", name, OBSERVERS)
    if not (FEATURES in levels(problem, design) and _one_feature(design)):
        raise IsonomyError(
            f"Observer {name!r} looks at the one feature that all heads read, which {design.architecture!r} has not on "
            f"{problem.name!r}: use hps with a head that reads one map, or leave the observer out."
        )
    for method in methods:
        if not find(method).method.stages:
            raise IsonomyError(f"Observer {name!r} does not look at procedures: leave method {method!r} out.")
    return name


def trials(given: int | None, methods: Sequence[str]) -> int | None:
    """How many trainings each grid search makes; None without one.

    Args:
        given: What the user wants; None for the search's own choice.
        methods: Of the sweep.

    Raises:
        IsonomyError: There is no search to make them.
    """
    if SEARCH not in (find(name).method.name for name in methods):
        if given is not None:
            raise IsonomyError(f"--trials is for {SEARCH}: add it to --methods, or leave --trials out.")
        return None
    return given if given is not None else int(catalogue.CATALOGUE[SEARCH].options["trials"])


def usable_level(method: catalogue.Method, level: str | None, possible: Sequence[str]) -> str | None:
    """Where a method will measure gradients.

    Args:
        method: Of the catalogue.
        level: What is asked for; None for the method's own choice.
        possible: What data set and network allow.

    Returns:
        The level; None if that cannot be.
    """
    if level is None:
        return next((own for own in method.levels or possible if own in possible), None)
    # At the last shared layer norms and cosines are measured and nothing is made, so the gradients must not be needed.
    own = (*method.levels, *([LAST_LAYER] if PARAMETERS in method.levels and "jacobian" not in method.needs else []))
    return level if level in possible and level in (own if method.levels else possible) else None
