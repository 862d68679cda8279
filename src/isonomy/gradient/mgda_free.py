"""MGDA without the constraint that weights are not negative."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.stages import GradientBalancer, Measurement


class MGDAFree(GradientBalancer):
    """The shortest vector in the affine hull of the task gradients: w = argmin ‖Jᵀw‖ with Σ w = 1, in closed form.

    Weights may be negative, and g·g_t is the same for every task. Liu et al., "Towards Impartial Multi-Task Learning",
    ICLR 2021, section 4 and appendix C.2. When the affine hull holds 0, as it does as soon as there are more tasks than
    dimensions, the aggregate is 0.

    Use it to compare with ``mgda``, whose results it comes close to in the paper; for training prefer ``mgda`` or
    ``imtl_g``.
    """

    heads = "weighted"

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        norms, C = measurement.gramian.norms, measurement.gramian.cosines
        # Stationarity and constraint in one symmetric system, in variables scaled by the norms: [[C, b], [bᵀ, 0]].
        b = norms.min() / norms
        system = torch.cat([torch.cat([C, b[:, None]], 1), torch.cat([b, b.new_zeros(1)])[None]])
        beta: Tensor = torch.linalg.pinv(system, rtol=1e-12, hermitian=True)[:-1, -1]
        w = b * beta
        return w / w.sum()
