"""The point of smallest norm in the convex hull of the task gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.gramian import Gramian
from isonomy.solvers.nnqp import nnqp


def min_norm(gramian: Gramian) -> Tensor:
    """Weights w on the simplex that minimise wᵀGw, exactly.

    With b_t = n_min / n_t and z the minimiser of ½ zᵀCz + ½ (bᵀz − 1)² over z ≥ 0, w is b∘z divided by its sum: the
    stationarity of one problem is that of the other. C is the cosine matrix, so norms that differ by 1e8 do no harm.

    Args:
        gramian: Of T gradients, none of them zero.

    Returns:
        w, shape (T,), float64: w ≥ 0 and Σ w = 1; (Gw)_t is constant on the support and not smaller elsewhere.
    """
    cosines, norms = gramian.cosines.cpu(), gramian.norms.cpu()
    shortest = norms.argmin()
    if bool((cosines[shortest] * norms >= norms[shortest]).all()):  # no gradient lies before the shortest one
        return torch.zeros_like(gramian.norms).index_fill(0, shortest.to(gramian.norms.device), 1.0)
    b = norms.min() / norms
    z = nnqp(cosines + torch.outer(b, b), -b)
    w = b * z
    return (w / w.sum()).to(gramian.norms.device)
