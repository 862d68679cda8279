"""SDMGrad, min-norm weights regularised towards the mean gradient."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, unknown
from isonomy.gradient.modo import cross_gramian
from isonomy.gramian import Gramian, combine
from isonomy.solvers import among, min_norm, project_simplex, share
from isonomy.stages import GradientBalancer, Measurement

_STEPS = 20
_MOMENTUM = 0.5


def regularised(gramian: Gramian, tasks: int, lam: float) -> Tensor:
    """The minimiser of ‖Jᵀw + λ g₀‖ over the simplex, exactly.

    Since Σ w = 1, it is the min-norm point of the gradients g_t + λ g₀.

    Args:
        gramian: Of K gradients.
        tasks: T; g₀ = Σ g_t / T.
        lam: λ ≥ 0.

    Returns:
        w, shape (K,), float64.
    """
    size = len(gramian.norms)
    shift = torch.eye(size, dtype=torch.float64, device=gramian.norms.device) + lam / tasks
    shifted = Gramian.of(shift @ gramian.matrix @ shift.T)
    vanishing = shifted.norms == 0
    return vanishing.double() / vanishing.sum() if vanishing.any() else min_norm(shifted)


def descend(matrix: Tensor, w: Tensor, target: Tensor, rate: float) -> Tensor:
    """The official code's inner loop: 20 projected steps with momentum, on a matrix of mean norm 1.

    It is no minimiser: at its rate of 10 it ends on a vertex more often than not.

    Args:
        matrix: J₁J₂ᵀ, shape (K, K).
        w: Where it starts, shape (K,).
        target: λ p, the constant part of the weights, shape (K,).
        rate: Length of a step.
    """
    scale = matrix.diagonal().clamp_min(0).sqrt().mean() ** 2
    matrix = matrix / torch.where(scale > 0, scale, 1.0)
    velocity = torch.zeros_like(w)
    for _ in range(_STEPS):
        velocity = _MOMENTUM * velocity + matrix @ (w + target)
        w = project_simplex(w - rate * velocity)
    return w


class SDMGrad(GradientBalancer):
    """Min-norm weights pulled towards the mean: d = (Jᵀw + λ g₀) / (1 + λ), w from min ‖Jᵀw + λ g₀‖² on the simplex.

    Three independent batches, ``balancer([losses(b1), losses(b2), losses(b3)], shared=...)``, make it unbiased: w moves
    on J₁J₂ᵀ, and d is of J₃. With one batch all three are the same, as they are by mistake in the official supervised
    code. Xiao, Ban and Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms",
    NeurIPS 2023, Algorithm 1.

    Use it as an MGDA that neglects tasks with long gradients less; ``inner="exact"`` where one batch a step is enough.

    Args:
        lam: λ ≥ 0; 0 is MGDA, a large one the mean gradient.
        inner: How w is found: by the ``"official"`` code's 20 steps from the last w, or as the ``"exact"`` minimiser of
            one batch, which needs no memory.
        inner_lr: Length of the official steps, relative to the square of the mean gradient norm.

    Raises:
        IsonomyError: ``lam`` is negative, ``inner`` unknown or ``inner_lr`` not positive.
    """

    shares: Tensor

    def __init__(
        self, lam: float = 0.3, inner: Literal["official", "exact"] = "official", inner_lr: float = 10.0
    ) -> None:
        super().__init__()
        if not 0 <= lam < float("inf"):
            raise IsonomyError(f"sdmgrad: lam={lam!r} must be 0 or more, and finite; the paper's code uses 0.3.")
        if inner not in ("official", "exact"):
            raise unknown("inner of sdmgrad", inner, ("official", "exact"))
        if not 0 < inner_lr < float("inf"):
            raise IsonomyError(f"sdmgrad: inner_lr={inner_lr!r} must be positive and finite; the paper's code uses 10.")
        self.lam, self.inner, self.inner_lr = lam, inner, inner_lr
        if inner == "official":
            self.jacobian, self.batches, self.levels = True, 3, ("parameters",)

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        self.register_buffer("shares", torch.full((tasks,), 1 / tasks, dtype=torch.float64))

    def forward(self, measurement: Measurement) -> Tensor | list[Tensor]:  # noqa: D102
        target = torch.full_like(measurement.gramian.norms, self.lam / self.tasks)
        if self.inner == "exact":
            return (regularised(measurement.gramian, self.tasks, self.lam) + target) / (1 + self.lam)
        matrix, shares, active = (t.cpu() for t in (cross_gramian(measurement), self.shares, measurement.active))
        found = descend(matrix, among(shares, active), target.cpu(), self.inner_lr)
        # No state: what update() takes up, which sees the aggregate alone.
        self._found = found.to(self.shares.device)
        weights = (self._found + target) / (1 + self.lam)
        batches = [] if measurement.jacobian is None else measurement.jacobian.batches
        return combine(batches[-1], weights) if len(batches) > 1 else weights

    def update(self, measurement: Measurement, weights: Any) -> None:  # noqa: D102
        if self.inner == "official":
            self.shares[measurement.active] = self._found * share(self.shares, measurement.active)
