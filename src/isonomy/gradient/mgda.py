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

    Use it where no task may lose at any step, after a loss balancer such as ``log``: as it is, the task with the
    smallest gradient decides.

    Args:
        normalize: By what each gradient is divided before the problem is solved: ``"none"``, its norm ``"l2"``, its
            ``"loss"`` or both ``"loss+"``.
        combine: Whether the weights are applied to the ``"raw"`` gradients, as in the official code, or to the
            ``"normalized"`` ones, as in LibMTL: only then does no task lose, whatever they are divided by.

    Raises:
        IsonomyError: ``normalize`` or ``combine`` is unknown.
    """

    heads = "weighted"

    def __init__(
        self,
        normalize: Literal["none", "l2", "loss", "loss+"] = "none",
        combine: Literal["raw", "normalized"] = "raw",
    ) -> None:
        super().__init__()
        if normalize not in NORMALIZERS:
            raise unknown("normalize of mgda", normalize, NORMALIZERS)
        if combine not in ("raw", "normalized"):
            raise unknown("combine of mgda", combine, ("raw", "normalized"))
        self.normalize, self.combine = normalize, combine
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
        weights = min_norm(Gramian(norms, gramian.cosines))
        return weights if self.combine == "raw" else weights * (norms / gramian.norms)
