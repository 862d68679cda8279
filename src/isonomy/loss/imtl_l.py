"""IMTL-L, the loss balance of impartial multi-task learning."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isonomy.stages import LossBalancer


class IMTLL(LossBalancer):
    """Learns one scale a task that pulls every scaled loss to 1: S = Σ exp(s_t) ℓ_t − s_t.

    At the optimum s_t = −log ℓ_t, where the model's gradient is that of the log-loss. Liu et al., "Towards Impartial
    Multi-Task Learning", ICLR 2021, equation 6.

    Use it where losses differ in unit and have no likelihood that ``uw`` could assume; ``log`` has the same gradients
    at once, without parameters to learn.

    Args:
        own_lr: Learning rate of s; the paper uses the model's.
    """

    domain = "nonnegative"

    def __init__(self, own_lr: float = 1e-3) -> None:
        super().__init__()
        self.own_lr = own_lr

    def setup(self, tasks: int) -> None:  # noqa: D102
        self.log_scales = nn.Parameter(torch.zeros(tasks))

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        s = self.log_scales[active]
        return torch.exp(s) * losses - s
