"""IGBv1, improvable gap balancing by a heuristic."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.loss.epochs import EpochReference, require_epochs
from isonomy.stages import LossBalancer


class IGBv1(LossBalancer):
    """More weight for tasks with more left to improve: S = Σ v_t log(ℓ_t + 1e-8), v = T softmax(ℓ / base), w = v / ℓ.

    base holds the mean losses of an early epoch, so that ℓ_t / base_t is the part of the task's gap to a loss of 0 that
    is still open. Until that epoch is over v is 1, the log-loss. Call ``balancer.epoch_end()`` after every epoch. Dai,
    Fei and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023.

    Use it where losses differ in unit and some tasks have come further than others; it needs a loss whose optimum is
    near 0, and costs nothing.

    Args:
        base_epoch: The epoch, counted from 0, whose mean losses are the base.

    Raises:
        IsonomyError: ``base_epoch`` is no epoch, or a task's losses are all 0 in it.
    """

    uses = ("epoch_end",)
    domain = "nonnegative"

    def __init__(self, base_epoch: int = 1) -> None:
        super().__init__()
        require_epochs("igb_v1", base_epoch=base_epoch)
        self.base_epoch = base_epoch

    def setup(self, tasks: int) -> None:  # noqa: D102
        self.reference = EpochReference(tasks, self.base_epoch)

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        base = self.reference.of(losses, active)
        # Without a base all ratios are 1, also that of a loss of 0 to itself.
        gaps = torch.where(base > 0, losses.detach() / base, 1.0)
        return len(losses) * torch.softmax(gaps, dim=0) * torch.log(losses + 1e-8)

    def update(self, losses: Tensor, active: Tensor) -> None:  # noqa: D102
        self.reference.means.add(losses, active)

    def epoch_end(self, metrics: Tensor | None, learning_rate: float | None) -> None:  # noqa: D102
        self.reference.epoch_end("igb_v1")
