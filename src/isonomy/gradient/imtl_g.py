"""IMTL-G, the gradient balance of impartial multi-task learning."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.stages import GradientBalancer, Measurement


class IMTLG(GradientBalancer):
    """The aggregate has equal projections on all unit task gradients: g·u_t is the same for every t, and Σ w = 1.

    With C the cosine matrix, β = C⁺1 and w_t ∝ β_t / n_t. Scaling a loss does not turn the aggregate. Liu et al.,
    "Towards Impartial Multi-Task Learning", ICLR 2021, equation 1 and appendix B.1; gradients at the shared feature.

    With three tasks or more the weights of the closed form can sum to less than 0, and dividing by the sum then turns
    descent into ascent. The sum of their absolute values takes its place there, which keeps the bisector a direction of
    descent.

    Use it when no task may dominate by its scale; at a shared feature it costs little more than the plain sum.
    """

    levels = ("features", "parameters")
    copes_with_zeros = True

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        norms, C = measurement.gramian.norms, measurement.gramian.cosines
        present = norms > 0
        ones = present.to(C)
        values, vectors = torch.linalg.eigh(C)
        inverse = torch.where(values > 1e-10 * values[-1], 1 / values, 0.0)
        beta: Tensor = vectors @ (inverse * (ones @ vectors)) * ones
        w = torch.where(present, beta / norms, 0.0)
        total, absolute = w.sum(), w.abs().sum()
        w = w / torch.where(total > 1e-8 * absolute, total, absolute)
        # Opposed gradients: no direction has a positive projection on all.
        return torch.where(beta.sum() < 1e-8, 0.0, w)
