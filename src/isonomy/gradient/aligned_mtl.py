"""Aligned-MTL, the task gradients replaced by the closest orthogonal ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import unknown
from isonomy.gradient.preference import Preferring
from isonomy.stages import Measurement

SCALES = ("min", "rmse", "median")


class AlignedMTL(Preferring):
    """Sums the closest gradients that are orthogonal and equally long: g = σ Σ p_t q_t, with Q the polar factor of J.

    With J = U S Vᵀ, Q is U Vᵀ, whose condition number is 1, and w = σ U S⁻¹ Uᵀ p. Senushkin et al., "Independent
    Component Alignment for Multi-Task Learning", CVPR 2023. Directions are told apart by angles alone, so
    the gradient of a task stays in the system however short it is, up to norms that differ by 1e12.

    Use it where near-parallel or opposed gradients make training unstable; two almost dependent gradients make the
    steps of all tasks short (``scale="min"``).

    Args:
        scale: σ, the length of the orthogonal gradients: the ``"min"``, the root mean square ``"rmse"`` or the
            ``"median"`` of the singular values that are not zero (the lower of the middle two when their number is
            even). The paper's choice is the smallest, with which no gradient gets longer.
        preference: p, one number of 0 or more a task; None for 1/T, the mean. ``[1.0] * T`` is the sum of the official
            code.

    Raises:
        IsonomyError: ``scale`` is unknown, or ``preference`` holds a number that is negative or not finite, nothing but
            zeros, or not one number for every task.
    """

    method = "aligned_mtl"

    def __init__(
        self, scale: Literal["min", "rmse", "median"] = "min", preference: Sequence[float] | None = None
    ) -> None:
        super().__init__(preference)
        if scale not in SCALES:
            raise unknown("scale of aligned_mtl", scale, SCALES)
        self.scale = scale

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        norms, C = measurement.gramian.norms.cpu(), measurement.gramian.cosines.cpu()
        lengths = norms / norms.max()
        # J in an orthonormal basis of its rows' span, one column a direction: norms that differ by 1e8 do no harm.
        values, vectors = torch.linalg.eigh(C)
        roots = torch.where(values > 1e-10 * values[-1], values.sqrt(), 0.0)
        U, s, Vh = torch.linalg.svd(lengths[:, None] * vectors * roots)
        kept = s > 1e-12 * s[0]
        aggregate = self._length(s[kept]) * (self.preference(measurement.active) @ U[:, kept] @ Vh[kept])
        weights: Tensor = (vectors @ torch.where(roots > 0, aggregate / roots, 0.0)) / lengths
        return weights.to(measurement.gramian.norms.device)

    def _length(self, singular: Tensor) -> Tensor:
        match self.scale:
            case "min":
                return singular.min()
            case "rmse":
                return singular.square().mean().sqrt()
            case _:
                return singular.median()
