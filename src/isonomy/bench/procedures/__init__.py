"""Procedures: published ways to train that are more than a balancer in somebody's loop."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from isonomy.bench.data import Problem
from isonomy.bench.procedures.base import Procedure

if TYPE_CHECKING:
    from isonomy.bench.trainer import Trainer

SEARCH = "grid_search"
# Those that learn from the finished single-task runs of their seed.
AFTER_SINGLE = (SEARCH, "url")


def make(trainer: Trainer) -> Procedure:
    """The procedure that a cell is trained by; for nearly all methods one that adds nothing.

    Args:
        trainer: Of the cell.
    """
    from isonomy.bench.procedures.auto_lambda import AutoLambda  # noqa: PLC0415 - they know the trainer, as it knows them
    from isonomy.bench.procedures.moml import MOML  # noqa: PLC0415
    from isonomy.bench.procedures.url import URL  # noqa: PLC0415

    stepwise: dict[str | None, type[Procedure]] = {None: Procedure, "auto_lambda": AutoLambda, "moml": MOML, "url": URL}
    options = dict(trainer.cell.config["procedure"] or {"name": None})
    return stepwise[options.pop("name")](trainer, **options)


def obstacle(name: str, problem: Problem) -> str | None:
    """Why a procedure cannot train on a data set, after "Method 'name' "; None if it can.

    Args:
        name: Of the procedure.
        problem: The data set.
    """
    if name == "url" and "features" not in problem.levels:
        return f"distils a shared feature, which data set {problem.name!r} has not: leave the method out."
    if name == SEARCH and find_spec("optuna") is None:
        return "needs Optuna: pip install 'isonomy[tune]', or leave the method out."
    return None
