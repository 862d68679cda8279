"""GLS, the geometric loss strategy."""

from __future__ import annotations

from torch import Tensor

from isonomy.stages import LossBalancer


class GLS(LossBalancer):
    """The geometric mean of the losses: S = (Π ℓ_t)^(1/T), so that w_t = S / (T ℓ_t).

    Computed through logarithms, since the product of many losses under- or overflows. When one loss goes to 0, so does
    S, and the other tasks stop learning: a property of the method. Chennupati et al., "MultiNet++", CVPR Workshops
    2019.

    Use it for a few tasks whose losses are positive, differ in unit and fall at much the same pace.
    """

    domain = "positive"

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        return (losses.log().mean().exp() / len(losses)).expand(len(losses))
