"""Max-norm, the gradient-magnitude balancing of DB-MTL."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, unknown
from isonomy.stages import GradientBalancer, Measurement

STRATEGIES = ("max", "min", "mean", "median")


class MaxNorm(GradientBalancer):
    """Every task's gradient is scaled to one norm: g = α Σ g_t / (‖g_t‖ + ε), with α the largest norm.

    The gradient half of DB-MTL: Lin et al., "Dual-Balancing for Multi-Task Learning", 2023, equation 1 and Figure 4,
    which compares the four choices of α and finds the largest norm best.

    Use it where gradient norms differ by much, after ``log`` as in ``db_mtl``; conflicts of direction remain.

    Args:
        alpha: The norm that all gradients get: the ``"max"``, ``"min"``, ``"mean"`` or ``"median"`` of theirs (the
            mean of the middle two when their number is even).
        eps: ε.

    Raises:
        IsonomyError: ``alpha`` is unknown, or ``eps`` negative or not finite.
    """

    copes_with_zeros = True

    def __init__(self, alpha: Literal["max", "min", "mean", "median"] = "max", eps: float = 1e-8) -> None:
        super().__init__()
        if alpha not in STRATEGIES:
            raise unknown("alpha of max_norm", alpha, STRATEGIES)
        if not 0 <= eps < float("inf"):
            raise IsonomyError(f"max_norm: eps={eps!r} must be 0 or more, and finite; the paper uses 1e-8.")
        self.alpha, self.eps = alpha, eps

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        norms = measurement.gramian.norms
        present = norms > 0
        match self.alpha:
            case "max":
                target = norms.max()
            case "min":
                target = torch.where(present, norms, torch.inf).min()
            case "mean":
                target = norms.sum() / present.sum()
            case _:
                target = torch.nanquantile(torch.where(present, norms, torch.nan), 0.5)
        return torch.where(present, target / (norms + self.eps), 0.0)
