"""MoCo, min-norm weights that follow tracked gradients by single steps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, unknown
from isonomy.solvers import among, project_simplex, share
from isonomy.stages import GradientBalancer, Measurement


class MoCo(GradientBalancer):
    """Moves the weights one step towards the min-norm point: w ← proj_Δ(w − γ_k (G + ρI) w), γ_k = γ / k^gamma_decay.

    G is of tracked gradients, so this is to stand after ``isonomy.smoothing.Tracking``, as in ``build("moco")``. γ goes
    with squared gradient norms and has to be tuned to the losses' scale. Fernando et al., "Mitigating Gradient Bias in
    Multi-objective Learning: A Provably Convergent Stochastic Approach", ICLR 2023, Algorithm 1.

    Use it with small batches, where MGDA's weights, solved on one noisy gramian, jump from step to step.

    Args:
        gamma: γ ≥ 0; 0 keeps the weights uniform.
        gamma_decay: Exponent of the number k of steps, from 1.
        rho: ρ ≥ 0, pulls towards uniform weights.
        simplex: How the weights come back to the simplex: by the nearest point, ``"projection"`` (the paper), or by
            ``"softmax"`` (LibMTL), which pulls them to uniform at every step.

    Raises:
        IsonomyError: A number is negative, or ``simplex`` unknown.
    """

    shares: Tensor
    steps: Tensor

    def __init__(
        self,
        gamma: float = 0.1,
        gamma_decay: float = 0.5,
        rho: float = 0.0,
        simplex: Literal["projection", "softmax"] = "projection",
    ) -> None:
        super().__init__()
        for name, value in (("gamma", gamma), ("gamma_decay", gamma_decay), ("rho", rho)):
            if not 0 <= value < float("inf"):
                raise IsonomyError(f"moco: {name}={value!r} must be 0 or more, and finite.")
        if simplex not in ("projection", "softmax"):
            raise unknown("simplex of moco", simplex, ("projection", "softmax"))
        self.gamma, self.gamma_decay, self.rho, self.simplex = gamma, gamma_decay, rho, simplex

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        self.register_buffer("shares", torch.full((tasks,), 1 / tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        w = among(self.shares, measurement.active)
        rate = self.gamma / (self.steps + 1).double() ** self.gamma_decay
        moved = w - rate * (measurement.gramian.matrix @ w + self.rho * w)
        return project_simplex(moved) if self.simplex == "projection" else torch.softmax(moved, 0)

    def update(self, measurement: Measurement, weights: Tensor) -> None:  # noqa: D102
        self.shares[measurement.active] = weights * share(self.shares, measurement.active)
        self.steps += 1
