"""Fixed weights, the outcome of a grid search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.stages import LossBalancer


class Fixed(LossBalancer):
    """Constant weights: S = Σ λ_t ℓ_t.

    Found by search they are the strongest simple baseline of Guo et al., "Revisit the Imbalance Optimization in
    Multi-Task Learning" (Tables II, VI and VII).

    Use it with weights that a search has found, or before a gradient balancer when some tasks are to count more.

    Args:
        weights: λ, one non-negative number a task, in task order; None for 1 each. A task of weight 0 does not train
            its head.

    Raises:
        IsonomyError: A weight is negative or not finite, or there is not one for every task.
    """

    symmetric = False
    weights: Tensor

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if isinstance(weights, Mapping):
            raise IsonomyError("Fixed: weights is a mapping: pass a list, one number a task in task order.")
        self.given = None if weights is None else list(weights)
        for weight in self.given or ():
            if not 0 <= weight < float("inf"):
                raise IsonomyError(f"Fixed: weights={self.given!r} holds {weight!r}; give finite numbers of 0 or more.")

    def setup(self, tasks: int) -> None:  # noqa: D102
        weights = [1.0] * tasks if self.given is None else self.given
        if len(weights) != tasks:
            raise IsonomyError(f"Fixed: weights has {len(weights)} entries for {tasks} tasks; give one a task.")
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float64))

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        return self.weights[active] * losses
