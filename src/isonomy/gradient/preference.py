"""How much each task counts, for the methods that take a preference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.stages import GradientBalancer


class Preferring(GradientBalancer):
    """A gradient balancer with a preference p, one number a task; 1/T for each unless it is given.

    Attributes:
        method: The name for errors.

    Args:
        preference: Finite numbers of 0 or more, not all 0, in task order; None for 1/T.

    Raises:
        IsonomyError: ``preference`` holds another number, or there is not one for every task.
    """

    method: str

    def __init__(self, preference: Sequence[float] | None = None) -> None:
        super().__init__()
        if preference is not None and not (all(0 <= p < float("inf") for p in preference) and any(preference)):
            raise IsonomyError(
                f"{self.method}: preference={list(preference)!r} must hold finite numbers of 0 or more, not all 0."
            )
        self.given = preference
        self.symmetric = preference is None

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        if self.given is not None and len(self.given) != tasks:
            raise IsonomyError(
                f"{self.method}: preference has {len(self.given)} entries for {tasks} tasks; give one a task."
            )

    def preference(self, active: Tensor) -> Tensor:
        """The p of the tasks at the positions ``active``, shape (K,), on the CPU."""
        p = [1 / self.tasks] * self.tasks if self.given is None else self.given
        return torch.tensor(p, dtype=torch.float64, device="cpu")[active.cpu()]
