"""MGDA, the multiple-gradient descent algorithm."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import unknown
from isonomy.gramian import Gramian
from isonomy.solvers import min_norm
from isonomy.stages import GradientBalancer, Measurement

NORMALIZERS = ("none", "l2", "loss", "loss+")


class MGDA(GradientBalancer):
    """The shortest vector in the convex hull of the task gradients: w = argmin over the simplex of ‖Jᵀw‖.

    It lowers every loss, and vanishes where no direction does. Small gradients win, since they are the short ones.
    Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018; Désidéri, 2012.

    Args:
        normalize: By what each gradient is divided before the problem is solved: ``"none"``, its norm ``"l2"``, its
            ``"loss"`` or both ``"loss+"``. The weights are applied to the gradients as they are, as in the official
            code.

    Raises:
        IsonomyError: ``normalize`` is unknown.
    """

    heads = "weighted"

    def __init__(self, normalize: Literal["none", "l2", "loss", "loss+"] = "none") -> None:
        super().__init__()
        if normalize not in NORMALIZERS:
            raise unknown("normalize of mgda", normalize, NORMALIZERS)
        self.normalize = normalize
        self.uses_losses = normalize in ("loss", "loss+")
        if self.uses_losses:
            self.domain = "positive"

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        gramian = measurement.gramian
        norms = torch.ones_like(gramian.norms) if self.normalize == "l2" else gramian.norms
        if measurement.losses is not None and self.uses_losses:
            # The loss that belongs to the balanced gradient, so that scaling a loss changes nothing.
            losses = measurement.losses * measurement.loss_weights
            norms = 1 / losses if self.normalize == "loss+" else norms / losses
        return min_norm(Gramian(norms, gramian.cosines))
