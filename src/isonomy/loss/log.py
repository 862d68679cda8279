"""The log-loss, loss-scale balancing of DB-MTL."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.stages import Domain, LossBalancer


class Log(LossBalancer):
    """The logarithm of every loss: S = Σ log(ℓ_t + ε), w_t = 1 / (ℓ_t + ε).

    Multiplying a loss by a constant changes no gradient, exactly and without a parameter. The loss half of DB-MTL: Lin
    et al., "Dual-Balancing for Multi-Task Learning", 2023, section 3.1.

    Use it first whenever positive losses differ in unit or magnitude: it costs nothing and goes with every gradient
    balancer.

    Args:
        eps: ε, so that a loss of exactly 0 has a finite weight; with ``eps=0`` losses have to be positive.

    Raises:
        IsonomyError: ``eps`` is negative or not finite.
    """

    domain: Domain = "nonnegative"

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        if not 0 <= eps < float("inf"):
            raise IsonomyError(f"log: eps={eps!r} must be a finite number of 0 or more; the default is 1e-8.")
        self.eps = eps
        if eps == 0:
            self.domain = "positive"

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        return torch.log(losses + self.eps)
