"""AvgNorm: every gradient as long as the sum of all."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.stages import GradientBalancer, Measurement


class AvgNorm(GradientBalancer):
    """Loss weights w_t = ‖Σ g‖ / ‖g_t‖, recomputed at every step.

    The weights multiply the whole loss, so heads get them too. The paper finds the last layer of the shared backbone
    sufficient for measuring: pass it as ``probe=``. Guo et al., "Revisit the Imbalance Optimization in Multi-Task
    Learning", equation 6.

    Use it where one task's gradient drowns the others' and the step should stay as long as plain summing makes it.
    """

    heads = "weighted"
    copes_with_zeros = True

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        gramian = measurement.gramian
        weights = gramian.combined_norm(torch.ones_like(gramian.norms)) / gramian.norms
        return torch.where(gramian.norms > 0, weights, 0.0)
