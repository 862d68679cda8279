"""Procedures: published ways to train that are more than a balancer in somebody's loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isonomy.bench.procedures.auto_lambda import AutoLambda
from isonomy.bench.procedures.base import Procedure
from isonomy.bench.procedures.feature_distance import FeatureDistance
from isonomy.bench.procedures.moml import MOML
from isonomy.bench.procedures.url import URL

if TYPE_CHECKING:
    from isonomy.bench.trainer import Trainer

# Those that act within a training; a grid search makes many of them.
STEPWISE: dict[str | None, type[Procedure]] = {None: Procedure, "auto_lambda": AutoLambda, "moml": MOML, "url": URL}
# Those that look at a training and leave it alone.
OBSERVERS: dict[str, type[Procedure]] = {"feature_distance": FeatureDistance}


def make(trainer: Trainer) -> Procedure:
    """The procedure that a cell is trained by; for nearly all methods one that adds nothing.

    Args:
        trainer: Of the cell.
    """
    if (observer := trainer.cell.config["observe"]) is not None:
        return OBSERVERS[observer](trainer)
    options = dict(trainer.cell.config["procedure"] or {"name": None})
    return STEPWISE[options.pop("name")](trainer, **options)
