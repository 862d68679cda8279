"""Which methods can be compared on which data set, and where they take their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from isonomy import catalogue
from isonomy.bench import data
from isonomy.errors import IsonomyError

SEARCH = "grid_search"
# Procedures that learn from the finished single-task runs of their seed.
AFTER_SINGLE = (SEARCH, "url")


def methods(names: Sequence[str], level: str | None, problem: data.Problem) -> tuple[str, ...]:
    """The methods of these names.

    Args:
        names: Of the catalogue, or hybrids; ``["all"]`` for the whole catalogue but for what cannot be compared here.
        level: Where all of them measure gradients; None for each method's own choice.
        problem: The data set.

    Raises:
        IsonomyError: A name is unknown or given twice, or a method cannot be compared on this data set.
    """
    if list(names) == ["all"]:
        return tuple(m.name for m in catalogue.methods("*") if _obstacle(m, level, problem) is None)
    if not names:
        raise IsonomyError("--methods is empty: name at least one, as `isonomy list methods` shows them.")
    for position, name in enumerate(names):
        method = catalogue.find(name)
        if name in names[:position]:
            raise IsonomyError(f"Method {name!r} is given twice: name each method once.")
        if obstacle := _obstacle(method, level, problem):
            raise IsonomyError(f"Method {name!r} {obstacle}")
    return tuple(names)


def _obstacle(method: catalogue.Method, level: str | None, problem: data.Problem) -> str | None:
    """Why a method cannot be compared on a data set, after "Method 'name' "; None if it can."""
    if method.name == "url" and "features" not in problem.levels:
        return f"distils a shared feature, which data set {problem.name!r} has not: leave the method out."
    if method.name == SEARCH and find_spec("optuna") is None:
        return "needs Optuna: pip install 'isonomy[tune]', or leave the method out."
    if usable_level(method, level, problem) is None:
        wanted = repr(level) if level else " or ".join(map(repr, problem.levels))
        return (
            f"cannot measure gradients at level {wanted}: use --level {' or '.join(method.levels)}, "
            "or leave the method out."
        )
    if method.stages and "validation" in method.needs and any(task.score is None for task in problem.tasks):
        return f"needs a validation score from 0 to 1, which data set {problem.name!r} has not: leave the method out."
    return None


def trials(given: int | None, methods: Sequence[str]) -> int | None:
    """How many trainings each grid search makes; None without one.

    Args:
        given: What the user wants; None for the search's own choice.
        methods: Of the sweep.

    Raises:
        IsonomyError: There is no search to make them.
    """
    if SEARCH not in methods:
        if given is not None:
            raise IsonomyError(f"--trials is for {SEARCH}: add it to --methods, or leave --trials out.")
        return None
    return given if given is not None else int(catalogue.find(SEARCH).options["trials"])


def usable_level(method: catalogue.Method, level: str | None, problem: data.Problem) -> str | None:
    """Where a method will measure gradients.

    Args:
        method: Of the catalogue.
        level: What is asked for; None for the method's own choice.
        problem: The data set.

    Returns:
        The level; None if that cannot be.
    """
    possible = [own for own in method.levels or problem.levels if own in problem.levels]
    return next(iter(possible), None) if level is None else level if level in possible else None
