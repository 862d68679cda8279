"""How much each task counts, for the methods that take a preference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isonomy.errors import IsonomyError


class Preference:
    """p, one number a task; 1/T for each unless it is given.

    Args:
        method: The name for errors.
        values: Finite numbers of 0 or more, not all 0, in task order; None for 1/T.

    Raises:
        IsonomyError: ``values`` holds another number.
    """

    def __init__(self, method: str, values: Sequence[float] | None) -> None:
        if values is not None and not (all(0 <= p < float("inf") for p in values) and any(values)):
            raise IsonomyError(
                f"{method}: preference={list(values)!r} must hold finite numbers of 0 or more, not all 0."
            )
        self.method, self.values = method, values

    def setup(self, tasks: int) -> None:
        """Fixes the number of tasks.

        Raises:
            IsonomyError: There is not one number for every task.
        """
        values = [1 / tasks] * tasks if self.values is None else list(self.values)
        if len(values) != tasks:
            raise IsonomyError(
                f"{self.method}: preference has {len(values)} entries for {tasks} tasks; give one a task."
            )
        self.p = torch.tensor(values, dtype=torch.float64, device="cpu")

    def of(self, active: Tensor) -> Tensor:
        """The p of the tasks at the positions ``active``, shape (K,), on the CPU."""
        return self.p[active.cpu()]
