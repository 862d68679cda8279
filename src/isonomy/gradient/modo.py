"""MoDo, min-norm weights from two independent batches."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.gramian import gramian
from isonomy.solvers import among, project_simplex, share
from isonomy.stages import GradientBalancer, Measurement


def cross_gramian(measurement: Measurement) -> Tensor:
    """J₁J₂ᵀ of a step's first two batches, shape (K, K), float64; G if there is one batch only.

    Row noise of one batch is independent of the other's, so its expectation is the gramian of the expected gradients;
    that of one batch has the noise's variance on top.
    """
    batches = [] if measurement.jacobian is None else measurement.jacobian.batches
    if len(batches) < 2:
        return measurement.gramian.matrix
    first, second = batches[:2]
    return gramian([*first, *second])[: len(first), len(first) :]


class MoDo(GradientBalancer):
    """Moves the weights one step towards the min-norm point, unbiased: w ← proj_Δ(w − γ (J₁J₂ᵀ + ρI) w).

    J₁ and J₂ are of two independent batches, ``balancer([losses(batch1), losses(batch2)], shared=...)``, and the
    aggregate is of their mean. With one batch J₁ = J₂, which biases towards tasks with little noise. γ goes with
    squared gradient norms and has to be tuned to the losses' scale. Chen et al., "Three-Way Trade-Off in
    Multi-Objective Learning: Optimization, Generalization and Conflict-Avoidance", NeurIPS 2023, Algorithm 1.

    Use it where a step can afford two batches and min-norm weights from one are ruled by noise.

    Args:
        gamma: γ ≥ 0; 0 keeps the weights uniform.
        rho: ρ ≥ 0, pulls towards uniform weights.

    Raises:
        IsonomyError: A number is negative.
    """

    levels = ("parameters",)
    jacobian = True
    batches = 2
    shares: Tensor

    def __init__(self, gamma: float = 0.1, rho: float = 0.1) -> None:
        super().__init__()
        for name, value in (("gamma", gamma), ("rho", rho)):
            if not 0 <= value < float("inf"):
                raise IsonomyError(f"modo: {name}={value!r} must be 0 or more, and finite.")
        self.gamma, self.rho = gamma, rho

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        self.register_buffer("shares", torch.full((tasks,), 1 / tasks, dtype=torch.float64))

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        w = among(self.shares, measurement.active)
        moved = w - self.gamma * (cross_gramian(measurement) @ w + self.rho * w)
        return project_simplex(moved)

    def update(self, measurement: Measurement, weights: Tensor) -> None:  # noqa: D102
        self.shares[measurement.active] = weights * share(self.shares, measurement.active)
