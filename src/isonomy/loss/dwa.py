"""DWA, dynamic weight average."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.stages import LossBalancer


class DWA(LossBalancer):
    """More weight for tasks whose loss falls slowly: w = T softmax(r / τ), r_t = L_t(e−1) / L_t(e−2).

    L_t(e) is the mean loss of epoch e; the weights of the first two epochs are 1. Call ``balancer.epoch_end()`` after
    every epoch. Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019.

    Use it where losses are alike in scale and some tasks learn slower than others; it leaves units as they are.

    Args:
        temperature: τ; large values make the weights equal.

    Raises:
        IsonomyError: ``temperature`` is not positive.
    """

    uses = ("epoch_end",)
    domain = "nonnegative"
    sums: Tensor
    counts: Tensor
    means: Tensor

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise IsonomyError(f"DWA: temperature={temperature!r} must be positive; the paper uses 2.")
        self.temperature = temperature

    def setup(self, tasks: int) -> None:  # noqa: D102
        self.register_buffer("sums", torch.zeros(tasks, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(tasks, dtype=torch.int64))
        # Means of the epoch before last and of the last one; NaN until there was one.
        self.register_buffer("means", torch.full((2, tasks), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        before, last = self.means[:, active]
        # A mean of 0 or a missing one says nothing about speed; the cap keeps the softmax finite.
        ratios = torch.where((before > 0) & last.isfinite(), last / before, 1.0).clamp(max=1e3)
        return len(losses) * torch.softmax(ratios / self.temperature, dim=0) * losses

    def update(self, losses: Tensor, active: Tensor) -> None:  # noqa: D102
        self.sums[active] += losses
        self.counts[active] += 1

    def epoch_end(self, metrics: Tensor | None, learning_rate: float | None) -> None:  # noqa: D102
        self.means = torch.stack([self.means[1], self.sums / self.counts])
        self.sums = torch.zeros_like(self.sums)
        self.counts = torch.zeros_like(self.counts)
