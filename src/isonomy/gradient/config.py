"""ConFIG, conflict-free inverse gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.stages import GradientBalancer, Measurement


class ConFIG(GradientBalancer):
    """The direction with equal cosines to all task gradients, as long as their projections on it sum to.

    v ∝ U⁺1 with U the unit gradients, and g = (Σ g_t·v) v. On the cosine matrix C, with β = C⁺1 and q = 1ᵀβ, the
    weights are w_t = (β_t / n_t) Σ_j n_j (Cβ)_j / q. Liu et al., "ConFIG: Towards Conflict-free Training of Physics
    Informed Neural Networks", ICLR 2025.

    Use it where IMTL-G's impartial direction is wanted and large gradients are to make long steps: it is the same
    direction at another length.
    """

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        norms, C = measurement.gramian.norms, measurement.gramian.cosines
        beta: Tensor = torch.linalg.pinv(C, rtol=1e-10, hermitian=True).sum(1)
        q = beta.sum()
        length = norms @ (C @ beta) / q
        # Opposed gradients: no direction has a positive projection on all.
        return torch.where(q < 1e-8, 0.0, beta * length) / norms
