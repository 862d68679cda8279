"""One training of a sweep: what is trained, and everything that determines its numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from isonomy.bench.architectures import Design
from isonomy.bench.recipe import Recipe

SINGLE = "single_task"
# Procedures that learn from the finished single-task runs of their seed.
AFTER_SINGLE = ("grid_search", "url")


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
        """``method/seed``, which is also its folder; of a method's options only what a file's name may hold."""
        return f"{folder(self.method)}/{self.seed}"

    @property
    def tasks(self) -> list[str]:
        """The tasks it trains."""
        return list(self.config["tasks"])

    @property
    def design(self) -> Design:
        """Its network."""
        return Design(**{field.name: self.config[field.name] for field in fields(Design)})

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        return Recipe(**{field.name: self.config[field.name] for field in fields(Recipe)})

    @property
    def procedure(self) -> str | None:
        """The procedure it is trained by; None for a method that is a balancer."""
        return self.config["procedure"] and str(self.config["procedure"]["name"])

    @property
    def waits(self) -> bool:
        """Whether it learns from the finished single-task runs of its seed."""
        return self.procedure in AFTER_SINGLE or self.config["observe"] is not None

    @property
    def length(self) -> int:
        """How many epochs it trains in all."""
        return int(self.recipe.epochs * (self.config["procedure"] or {}).get("trials", 1))


def single(task: str) -> str:
    """The method name of a task's single-task training."""
    return f"{SINGLE}-{task}"


def folder(method: str) -> str:
    """The folder of a method's runs.

    Args:
        method: With options or without.
    """
    return re.sub(r"[^\w=.+-]+", "-", method)
