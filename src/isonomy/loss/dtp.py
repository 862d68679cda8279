"""DTP, dynamic task prioritisation."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.stages import LossBalancer


class DTP(LossBalancer):
    """More weight for tasks that perform badly: S = Σ w_t ℓ_t, w_t = −(1 − κ_t)^γ log κ_t.

    κ_t is a running mean of the task's key performance indicator, such as its accuracy, to be passed to
    ``balancer.epoch_end(metrics)`` after every epoch: between 0 and 1, larger is better. For a regression take for
    example the fraction of predictions within a tolerance. A task without one has weight 1. Here κ is held between 0.01
    and 0.99, so that no weight is 0 or infinite, and the defaults are Isonomy's own. Guo, Haque, Huang, Yeung and
    Fei-Fei, "Dynamic Task Prioritization for Multitask Learning", ECCV 2018.

    Use it where every task has an indicator that says how far it is from done, and the hard tasks matter most.

    Args:
        alpha: How much the newest indicator counts in the running mean, above 0 and at most 1.
        gamma: γ ≥ 0; the larger, the less the tasks count that perform well.

    Raises:
        IsonomyError: An argument is out of range, or an indicator is not between 0 and 1.
    """

    uses = ("validation",)
    indicators: Tensor

    def __init__(self, alpha: float = 0.5, gamma: float = 1.0) -> None:
        super().__init__()
        if not 0 < alpha <= 1:
            raise IsonomyError(f"dtp: alpha={alpha!r} must be above 0 and at most 1; the default is 0.5.")
        if not 0 <= gamma < float("inf"):
            raise IsonomyError(f"dtp: gamma={gamma!r} must be 0 or more; the default is 1.")
        self.alpha, self.gamma = alpha, gamma

    def setup(self, tasks: int) -> None:  # noqa: D102
        self.register_buffer("indicators", torch.full((tasks,), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        kappa = self.indicators[active]
        held = kappa.clamp(0.01, 0.99)
        return torch.where(kappa.isnan(), 1.0, -((1 - held) ** self.gamma) * held.log()) * losses

    def epoch_end(self, metrics: Tensor | None, learning_rate: float | None) -> None:  # noqa: D102
        if metrics is None:
            return
        outside = ((metrics < 0) | (metrics > 1)).nonzero().flatten().tolist()
        if outside:
            raise IsonomyError(
                f"dtp: the metric of task number {outside[0]} (from 0) is {float(metrics[outside[0]]):.6g}: pass one "
                "between 0 and 1 where larger is better, such as an accuracy."
            )
        mean = self.alpha * metrics + (1 - self.alpha) * self.indicators
        first = torch.where(self.indicators.isnan(), metrics, mean)
        self.indicators = torch.where(metrics.isnan(), self.indicators, first)
