"""Tracking, the variance-reduced task gradients of MoCo."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.history import blend, history
from isonomy.stages import Smoothing


class Tracking(Smoothing):
    """Follows each task's gradient with a slow copy: y ← y − β_k (y − g) with β_k = β / k^beta_decay.

    k counts the steps in which the task took part, from 1; y starts at 0. Fernando et al., "Mitigating Gradient Bias in
    Multi-objective Learning", ICLR 2023, Algorithm 1, without its projection on a ball, which no code has. LibMTL
    follows ℓ_t g_t / ‖g_t‖ instead of g_t, which a smoothing cannot, since it does not see the losses.

    Memory: T x P numbers, the copies.

    Use it in front of a method that solves for weights on noisy gradients; where β_k decays, old gradients stay, so the
    learning rate has to be small enough for them to be of use.

    Args:
        beta: β in (0, 1]; 1 with ``beta_decay=0`` follows at once.
        beta_decay: Exponent of k, 0 or more.

    Raises:
        IsonomyError: ``beta`` or ``beta_decay`` is out of range, or the shared parameters have changed their number.
    """

    lazy = ("tracked",)
    tracked: Tensor | None
    steps: Tensor

    def __init__(self, beta: float = 0.5, beta_decay: float = 0.5) -> None:
        super().__init__()
        if not 0 < beta <= 1:
            raise IsonomyError(f"moco: beta={beta!r} must lie in (0, 1]; LibMTL uses 0.5.")
        if not beta_decay >= 0:
            raise IsonomyError(f"moco: beta_decay={beta_decay!r} must not be negative; LibMTL uses 0.5.")
        self.beta, self.beta_decay = beta, beta_decay

    def setup(self, tasks: int) -> None:  # noqa: D102
        self.tasks = tasks
        self.register_buffer("tracked", None)
        self.register_buffer("steps", torch.zeros(tasks, dtype=torch.int64))

    def forward(self, rows: list[list[Tensor]], active: Tensor) -> list[list[Tensor]]:  # noqa: D102
        tracked = history(self, "tracked", rows, self.tasks)
        self.steps[active] += 1
        return blend(tracked, rows, active, self.beta / self.steps[active].double() ** self.beta_decay)
