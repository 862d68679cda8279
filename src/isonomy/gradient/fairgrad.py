"""FairGrad, α-fair allocation of the descent."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.solvers import fair
from isonomy.stages import GradientBalancer, Measurement


class FairGrad(GradientBalancer):
    """Divides the descent among the tasks α-fairly: G w = w^(−1/α) with w > 0, so that every task gains.

    α = 0 is the mean gradient, α = 1 Nash-MTL; as α grows the gains g_t·d approach each other. Ban and Ji, "Fair
    Resource Allocation in Multi-Task Learning", ICML 2024. For α > 1 the step grows as gradients shrink, which is what
    ``max_norm`` is for; the official code multiplies the direction by T before it clips. Where no solution exists (a
    Pareto-stationary point) a ridge of 1e-12 gives a direction that is nearly 0 for α up to 2, under huge weights;
    heads that are weighted keep their last ones there.

    Use it to choose between a good average (α towards 0) and even progress (α large); at the default α = 2 short
    gradients get more than their share, as in the paper's experiments.

    Args:
        alpha: α, 0 or from 0.25 to 20.
        max_norm: The aggregate is scaled down to this norm; None leaves it as it is.

    Raises:
        IsonomyError: ``alpha`` is out of range or ``max_norm`` is not positive.
    """

    last: Tensor

    def __init__(self, alpha: float = 2.0, max_norm: float | None = 1.0) -> None:
        super().__init__()
        if not (alpha == 0 or 0.25 <= alpha <= 20):
            raise IsonomyError(f"fairgrad: alpha={alpha!r} must be 0 or from 0.25 to 20; the paper uses 2 and 1.")
        if max_norm is not None and not max_norm > 0:
            raise IsonomyError(f"fairgrad: max_norm={max_norm!r} must be positive, or None for no limit.")
        self.alpha, self.max_norm = alpha, max_norm

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        self.register_buffer("last", torch.ones(tasks, dtype=torch.float64))

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        if self.alpha == 0:
            return torch.full_like(measurement.gramian.norms, 1 / self.tasks)
        return fair(measurement.gramian, self.alpha)

    def head_weights(self, measurement: Measurement, weights: Tensor) -> Tensor:  # noqa: D102
        if self.alpha == 0:
            return weights
        norms, C = measurement.gramian.norms, measurement.gramian.cosines
        # A task's gain is w^(−1/α) at a solution; where there is none, the ridge takes its place.
        solved = norms * (C @ (norms * weights)) * weights ** (1 / self.alpha) > 0.5
        return torch.where(solved, weights, self.last[measurement.active])

    def update(self, measurement: Measurement, weights: Tensor) -> None:  # noqa: D102
        self.last[measurement.active] = self.head_weights(measurement, weights)
