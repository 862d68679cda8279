"""Projection on the cone of directions that conflict with no task."""

from __future__ import annotations

from torch import Tensor

from isonomy.gramian import Gramian
from isonomy.solvers.nnqp import nnqp


def dual_cone(gramian: Gramian, weights: Tensor) -> Tensor:
    """For each row u the v ≥ u with the shortest Jᵀv: the projection of Jᵀu on the cone of d with J d ≥ 0.

    In z = n ∘ (v − u) the program is min ½ zᵀCz + (C (n ∘ u))ᵀz over z ≥ 0, whatever the norms n are.

    Args:
        gramian: Of T gradients, none of them zero.
        weights: u, shape (B, T), float64.

    Returns:
        v, shape (B, T). Jᵀv is unique, v where J has full row rank.
    """
    norms, C, u = gramian.norms.cpu(), gramian.cosines.cpu(), weights.cpu()
    v: Tensor = u + nnqp(C, (u * norms) @ C) / norms
    return v.to(gramian.norms.device)
