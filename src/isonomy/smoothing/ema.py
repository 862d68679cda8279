"""EMA, the exponential moving average of the task gradients in DB-MTL."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.history import blend, history
from isonomy.stages import LEVELS, Level, Smoothing


class EMA(Smoothing):
    """Averages each task's gradient over the steps: ĝ ← β_k ĝ + (1 − β_k) g with β_k = β / k^decay.

    k counts the steps in which the task took part, from 1; ĝ starts at 0 and is not corrected for that, so the first
    steps are short. Lin et al., "Dual-Balancing for Multi-Task Learning", 2023, Algorithm 1, step 7, and Table 8, where
    the decaying factor (decay 0.5) beats the constant one.

    Memory: T x P numbers, the gradients' history. The history is of the shared parameters; gradients at a feature
    belong to other samples in every batch and cannot be averaged.

    Use it where small batches make task gradients noisy, with a factor that decays: a constant one of 0.9 is the worst
    choice in the paper's table.

    Args:
        beta: β in [0, 1); 0 averages nothing.
        decay: Exponent of k; 0 keeps β constant, as LibMTL does.

    Raises:
        IsonomyError: ``beta`` or ``decay`` is out of range, or the shared parameters have changed their number.
    """

    lazy = ("average",)
    average: Tensor | None
    steps: Tensor

    def __init__(self, beta: float = 0.9, decay: float = 0.5) -> None:
        super().__init__()
        if not 0 <= beta < 1:
            raise IsonomyError(f"EMA: beta={beta!r} must lie in [0, 1).")
        if not decay >= 0:
            raise IsonomyError(f"EMA: decay={decay!r} must not be negative; the paper uses 0.5, LibMTL 0.")
        self.beta, self.decay = beta, decay

    def setup(self, tasks: int) -> None:  # noqa: D102
        self.tasks = tasks
        self.register_buffer("average", None)
        self.register_buffer("steps", torch.zeros(tasks, dtype=torch.int64))

    def levels(self) -> tuple[Level, ...]:
        """Both levels when nothing is averaged, else the parameters alone."""
        return LEVELS if self.beta == 0 else ("parameters",)

    def forward(self, rows: list[list[Tensor]], active: Tensor) -> list[list[Tensor]]:  # noqa: D102
        if self.beta == 0:
            return rows
        average = history(self, "average", rows, self.tasks)
        self.steps[active] += 1
        return blend(average, rows, active, 1 - self.beta / self.steps[active].double() ** self.decay)
