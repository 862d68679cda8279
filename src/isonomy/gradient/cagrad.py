"""CAGrad, conflict-averse gradient descent."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.solvers import cagrad
from isonomy.stages import GradientBalancer, Measurement


class CAGrad(GradientBalancer):
    """Lifts the task that gains least, close to the mean gradient: max_d min_t g_t·d with ‖d − g₀‖ ≤ c‖g₀‖.

    Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021. Solved exactly; the common
    codes stop at an absolute tolerance, and are wrong by half for gradients of norm 0.01 and by a quarter at 1000.

    Use it when the average loss is what counts and conflict holds a task back; with c < 1 a loss may still rise, and
    scales of losses matter as they do in the mean.

    Args:
        c: Radius of the ball around the mean gradient g₀, relative to ‖g₀‖. 0 gives the mean; from 1 on no task's loss
            rises.
        rescale: The result is divided by 1 (``0``), 1 + c² (``1``, as the official code) or 1 + c (``2``).

    Raises:
        IsonomyError: ``c`` is negative or not finite, or ``rescale`` is not 0, 1 or 2.
    """

    def __init__(self, c: float = 0.5, rescale: Literal[0, 1, 2] = 1) -> None:
        super().__init__()
        if not 0 <= c < float("inf"):
            raise IsonomyError(f"cagrad: c={c!r} must be 0 or more, and finite; the paper uses values in [0, 1).")
        if rescale not in (0, 1, 2):
            raise IsonomyError(f"cagrad: rescale={rescale!r} must be 0, 1 or 2.")
        self.c, self.rescale = c, rescale

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        correction = cagrad(measurement.gramian, self.tasks, self.c)
        mean = torch.full_like(correction, 1 / self.tasks)
        return (mean + correction) / (1.0, 1 + self.c**2, 1 + self.c)[self.rescale]
