"""LDC-MTL, loss discrepancy control."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from isonomy.errors import IsonomyError, unknown
from isonomy.stages import LossBalancer


class LDCMTL(LossBalancer):
    """Learns weights that keep weighted losses together: S = Σ σ_t n_t / Σ σ + λ Σ |σ_t n_t − σ_{t+1} n_{t+1}|.

    n is the normalised loss and σ = sigmoid(W) a vector that is trained by S, in which Σ σ is a constant; neighbours in
    task order are compared. The authors' code differs from data set to data set; this is its form for CelebA, with the
    normalisation and the penalty that it has for NYUv2.
    Xiao, Dong, Zou and Ji, "LDC-MTL: Balancing Multi-Task Learning through Scalable Loss Discrepancy Control", 2025.

    Use it for long runs of tasks that start from losses of different size, where weights may adapt slowly and cheaply.

    Args:
        penalty: λ ≥ 0, what the differences of weighted losses cost; the authors use 0.01 to 0.1.
        normalize: ``"ratio"``, ℓ_t divided by its first value relative to the smallest first value; ``"log_ratio"``,
            log(ℓ_t / first), the first taken anew after every ``balancer.epoch_end()``; or ``"none"``.
        own_lr: Learning rate of W; the authors use the model's.

    Raises:
        IsonomyError: ``penalty`` is negative, ``normalize`` unknown, or a first loss is 0.
    """

    symmetric = False
    first: Tensor

    def __init__(
        self,
        penalty: float = 0.05,
        normalize: Literal["ratio", "log_ratio", "none"] = "ratio",
        own_lr: float = 1e-3,
    ) -> None:
        super().__init__()
        if not 0 <= penalty < float("inf"):
            raise IsonomyError(f"ldc_mtl: penalty={penalty!r} must be 0 or more; the authors use 0.01 to 0.1.")
        if normalize not in ("ratio", "log_ratio", "none"):
            raise unknown("normalize of ldc_mtl", normalize, ("ratio", "log_ratio", "none"))
        self.penalty, self.normalize, self.own_lr = penalty, normalize, own_lr
        if normalize == "ratio":
            self.domain = "nonnegative"
        if normalize == "log_ratio":
            self.domain, self.uses = "positive", ("epoch_end",)

    def setup(self, tasks: int) -> None:  # noqa: D102
        self.scores = nn.Parameter(torch.ones(tasks))
        self.register_buffer("first", torch.full((tasks,), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        share = torch.sigmoid(self.scores[active].double())
        weighted = share * self._normalized(losses, active)
        return weighted / share.detach().sum() + self.penalty * weighted.diff().abs().sum() / len(losses)

    def update(self, losses: Tensor, active: Tensor) -> None:  # noqa: D102
        self.first = self._first(losses, active)

    def epoch_end(self, metrics: Tensor | None, learning_rate: float | None) -> None:  # noqa: D102
        if self.normalize == "log_ratio":
            self.first = torch.full_like(self.first, torch.nan)

    def _first(self, losses: Tensor, active: Tensor) -> Tensor:
        """Every task's first loss, shape (T,); this batch's where there was none, NaN without either."""
        now = torch.full_like(self.first, torch.nan).index_put((active,), losses.detach())
        return torch.where(self.first.isnan(), now, self.first)

    def _normalized(self, losses: Tensor, active: Tensor) -> Tensor:
        if self.normalize == "none":
            return losses
        first = self._first(losses, active)
        if self.normalize == "log_ratio":
            return torch.log(losses / first[active])
        zeros = (first == 0).nonzero().flatten().tolist()
        if zeros:
            raise IsonomyError(
                f"ldc_mtl: the first loss of task number {zeros[0]} (from 0) is 0, and later ones cannot be divided by "
                "it: train without this task, or pass normalize='none'."
            )
        return losses / first[active] * first.nan_to_num(nan=torch.inf).min()
