"""UW, uncertainty weighting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from isonomy.errors import IsonomyError, unknown
from isonomy.stages import LossBalancer

Likelihood = Literal["unified", "gaussian", "classification", "laplace"]

# Coefficients (a, b) of a·exp(−s)·ℓ + b·s for each likelihood of the paper; "unified" is what most codes use for all.
COEFFICIENTS: dict[str, tuple[float, float]] = {
    "unified": (0.5, 0.5),
    "gaussian": (0.5, 0.5),
    "classification": (1.0, 0.5),
    "laplace": (1.0, 1.0),
}


class UW(LossBalancer):
    """Learns one noise scale a task: S = Σ a_t exp(−s_t) ℓ_t + b_t s_t with s_t = log σ_t².

    At the optimum of s every weighted loss is b_t, so noisy tasks count less. Each of the paper's forms in the noise
    scale σ, ``likelihood`` says which, is one of these in its logarithm, which needs no bound. Kendall, Gal and
    Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018.

    Use it where losses are likelihoods in different units and there is time for s to settle; losses near 0 get large
    weights.

    Args:
        likelihood: One name for all tasks, or one a task: ``"gaussian"`` for squared errors, ℓ / 2σ² + log σ;
            ``"classification"`` for cross-entropies, ℓ / σ² + log σ; ``"laplace"`` for absolute errors, ℓ / σ + log σ
            with s = log σ; or ``"unified"``, the first for whatever losses, as in most codes.
        init: First value of s. LibMTL's is -0.5.
        own_lr: Learning rate of s.

    Raises:
        IsonomyError: A likelihood is unknown, or there is not one for every task.
    """

    domain = "nonnegative"
    coefficients: Tensor

    def __init__(
        self, likelihood: Likelihood | Sequence[Likelihood] = "unified", init: float = 0.0, own_lr: float = 0.025
    ) -> None:
        super().__init__()
        for name in [likelihood] if isinstance(likelihood, str) else likelihood:
            if name not in COEFFICIENTS:
                raise unknown("likelihood", name, COEFFICIENTS)
        self.likelihood, self.init, self.own_lr = likelihood, init, own_lr

    def setup(self, tasks: int) -> None:  # noqa: D102
        names = [self.likelihood] * tasks if isinstance(self.likelihood, str) else self.likelihood
        if len(names) != tasks:
            raise IsonomyError(
                f"UW: likelihood has {len(names)} entries for {tasks} tasks; give one name, or one a task."
            )
        self.register_buffer("coefficients", torch.tensor([COEFFICIENTS[name] for name in names]).T, persistent=False)
        self.log_variances = nn.Parameter(torch.full((tasks,), float(self.init)))

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        a, b = self.coefficients[0, active], self.coefficients[1, active]
        s = self.log_variances[active]
        return a * torch.exp(-s) * losses + b * s
