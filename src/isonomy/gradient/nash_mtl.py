"""Nash-MTL, multi-task learning as a bargaining game."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.solvers import nash
from isonomy.stages import GradientBalancer, Measurement


class NashMTL(GradientBalancer):
    """The Nash bargaining solution: G w = 1/w with w > 0, so that every task gains and ‖Jᵀw‖ = √T.

    Scaling a loss changes nothing at the shared parameters. Heads get w. Navon et al., "Multi-Task Learning as a
    Bargaining Game", ICML 2022, equation 2. The paper approximates the equation by a sequence of convex programs; here
    it is solved to 1e-12. Where no solution exists (a Pareto-stationary point) heads keep the last weights and the
    shared parameters get a direction that is nearly 0.

    Use it when every task has to gain at every step whatever its scale, with a learning rate that decays: the step's
    length does not shrink as training converges.

    Args:
        max_norm: The aggregate is scaled down to this norm, as in the official code; None for √T.

    Raises:
        IsonomyError: ``max_norm`` is not positive.
    """

    heads = "weighted"
    last: Tensor

    def __init__(self, max_norm: float | None = 1.0) -> None:
        super().__init__()
        if max_norm is not None and not max_norm > 0:
            raise IsonomyError(f"nash_mtl: max_norm={max_norm!r} must be positive, or None for no limit.")
        self.max_norm = max_norm

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        self.register_buffer("last", torch.ones(tasks, dtype=torch.float64))

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        return nash(measurement.gramian)

    def head_weights(self, measurement: Measurement, weights: Tensor) -> Tensor:  # noqa: D102
        return torch.where(self._exists(measurement, weights), weights, self.last[measurement.active])

    def update(self, measurement: Measurement, weights: Tensor) -> None:  # noqa: D102
        self.last[measurement.active] = self.head_weights(measurement, weights)

    @staticmethod
    def _exists(measurement: Measurement, weights: Tensor) -> Tensor:
        # A solution's aggregate has norm √T; without one the solver's is nearly 0.
        return measurement.gramian.combined_norm(weights) ** 2 > len(weights) / 2
