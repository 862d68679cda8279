"""FAMO, fast adaptive multitask optimisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isonomy.errors import IsonomyError
from isonomy.stages import LossBalancer

EPS = 1e-8


class FAMO(LossBalancer):
    """Equal rates of improvement from losses alone: S = (1/c) Σ z_t log ℓ_t, z = softmax(ξ), c = Σ z_t / ℓ_t.

    The weights w_t = z_t / (c ℓ_t) sum to 1. After the model's step the logarithms of the same batch's losses, computed
    anew, say how much every task improved, and ξ learns to give more to those that improved less than the mean. Call
    ``balancer.step_end(losses)`` with these losses after every step of the optimiser; without it z stays uniform. Liu,
    Feng, Stone and Liu, "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, Algorithm 1. Losses are taken to
    have an optimum of 0: subtract a bound that is known to be higher.

    Use it for many tasks, where taking every task's gradient costs too much and a second forward pass does not.

    Args:
        own_lr: Learning rate of ξ.
        own_weight_decay: Weight decay of ξ, which forgets old improvements.

    Raises:
        IsonomyError: ``step_end`` hears a negative loss.
    """

    domain = "nonnegative"
    uses = ("step_losses",)
    before: Tensor

    def __init__(self, own_lr: float = 0.025, own_weight_decay: float = 1e-3) -> None:
        super().__init__()
        self.own_lr, self.own_weight_decay = own_lr, own_weight_decay

    def setup(self, tasks: int) -> None:  # noqa: D102
        self.logits = nn.Parameter(torch.zeros(tasks))
        # Losses of the step that waits for its step_end; NaN for a task that had none, and when nothing waits.
        self.register_buffer("before", torch.full((tasks,), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        z = torch.softmax(self.logits.detach()[active].double(), dim=0)
        shifted = losses + EPS
        return z * torch.log(shifted) / (z / shifted.detach()).sum()

    def update(self, losses: Tensor, active: Tensor) -> None:  # noqa: D102
        self.before.fill_(torch.nan)
        self.before[active] = losses

    def step_end(self, losses: Tensor, active: Tensor) -> list[Tensor]:  # noqa: D102
        for position, loss in zip(active.tolist(), losses.tolist(), strict=True):
            if loss < 0:
                raise IsonomyError(
                    f"famo: the loss of task number {position} (from 0) after the step is {loss:.6g}: pass step_end "
                    "the same kind of loss as the balancer, 0 or more."
                )
        known = self.before[active].isfinite()
        if not known.any():
            # The step before was skipped, or its losses were heard already.
            return []
        losses, active = losses[known], active[known]
        improved = torch.log(self.before[active] + EPS) - torch.log(losses + EPS)
        z = torch.softmax(self.logits.detach()[active].double(), dim=0)
        gradient = torch.zeros_like(self.before)
        gradient[active] = z * (improved - z @ improved)
        self.before.fill_(torch.nan)
        return [gradient]
