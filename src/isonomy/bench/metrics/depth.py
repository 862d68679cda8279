"""Depth: absolute, relative and root mean squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.bench.metrics.base import Sums


class Depth(Sums):
    """``AErr``, ``RErr`` and ``RMSE``, exact means over every measured pixel of the set, in the labels' unit.

    With p the prediction and g the truth: AErr = mean |p − g|, RErr = mean |p − g| / g, and RMSE = √ mean (max(p, 0) −
    g)², one root over all pixels; a negative depth is taken as 0 there, as InvPT and ATRC do. Without any measured
    pixel all are NaN.

    Args:
        ignore: The truth where nothing was measured: 0, or 255 as InvPT's labels have it.
        percent: Whether RErr is in percent.
    """

    absolute: Tensor
    relative: Tensor
    squared: Tensor
    pixels: Tensor

    def __init__(self, ignore: float = 0.0, percent: bool = False) -> None:
        super().__init__()
        self.ignore, self.percent = ignore, percent
        for name in ("absolute", "relative", "squared"):
            self.add_sum(name, dtype=torch.float64)
        self.add_sum("pixels")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            prediction: Depths (B, 1, H, W) at the labels' resolution.
            target: Depths (B, 1, H, W).
        """
        self.check_values(prediction, target, "B", 1, "H", "W")
        valid = target != self.ignore
        truth, guess = target[valid].double(), prediction[valid].double()
        if not ((truth > 0) & truth.isfinite()).all():
            raise self.error(
                f"a measured depth is not a positive number: let {self.ignore:g} alone mark what was not measured."
            )
        error = (guess - truth).abs()
        self.absolute += error.sum()
        self.relative += (error / truth).sum()
        self.squared += (guess.clamp(min=0) - truth).square().sum()
        self.pixels += truth.numel()

    def compute(self) -> dict[str, Tensor]:
        """``AErr``, ``RErr`` and ``RMSE``."""
        return {
            "AErr": self.absolute / self.pixels,
            "RErr": (100 if self.percent else 1) * self.relative / self.pixels,
            "RMSE": (self.squared / self.pixels).sqrt(),
        }
