"""GO4Align, group optimisation for task alignment."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.solvers import kmeans
from isonomy.stages import LossBalancer


class GO4Align(LossBalancer):
    """One weight a group of tasks that progress alike: S = Σ w_t ℓ_t, w_t the group's mean of q_t = p_t (Σ ℓ) / ℓ_t.

    p is a distribution over tasks that moves away from large losses: p_t ← p_t exp(−β ℓ_t), normalised, at every step.
    Groups are the exact k-means of the indicators q. Their number by default is Isonomy's own choice: with one group,
    the default of the authors' code, all weights are equal. Shen, Wang, Xiao, van Noord and Worring, "GO4Align: Group
    Optimization for Multi-Task Alignment", NeurIPS 2024.

    Use it for losses that differ in unit, when a few groups of tasks should move together.

    Args:
        groups: How many groups; None for 2 for up to three tasks and 3 for more. As many as tasks leave w = q.
        beta: β ≥ 0, how fast p moves.

    Raises:
        IsonomyError: ``groups`` or ``beta`` is out of range.
    """

    domain = "nonnegative"
    totals: Tensor

    def __init__(self, groups: int | None = None, beta: float = 1e-4) -> None:
        super().__init__()
        if groups is not None and not (isinstance(groups, int) and groups >= 1):
            raise IsonomyError(f"go4align: groups={groups!r} must be a number of groups, 1 or more, or None.")
        if not 0 <= beta < float("inf"):
            raise IsonomyError(f"go4align: beta={beta!r} must be 0 or more; the authors' code uses 1e-4.")
        self.groups, self.beta = groups, beta

    def setup(self, tasks: int) -> None:  # noqa: D102
        self.count = self.groups or (2 if tasks <= 3 else 3)
        # All of p's history is the sum of every task's losses: p = softmax(−β Σ ℓ).
        self.register_buffer("totals", torch.zeros(tasks, dtype=torch.float64))

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        seen = losses.detach()
        p = torch.softmax(-self.beta * (self.totals[active] + seen), dim=0)
        indicators = p * seen.sum() / seen.clamp(min=1e-8)
        return kmeans(indicators, self.count) * losses

    def update(self, losses: Tensor, active: Tensor) -> None:  # noqa: D102
        self.totals[active] += losses
