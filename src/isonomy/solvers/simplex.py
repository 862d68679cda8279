"""The nearest point of the simplex."""

from __future__ import annotations

import torch
from torch import Tensor


def project_simplex(v: Tensor) -> Tensor:
    """The point of {w ≥ 0, Σ w = 1} nearest to v.

    It is max(v − τ, 0) for the one τ that makes the sum right. With v in descending order, Σ_{i≤j} (v_i − v_j) does not
    decrease in j, and the entries for which it exceeds 1 become 0. Entries enter by their distance from the
    largest alone, so vectors of size 1e30 lose nothing.

    Args:
        v: Shape (T,), floating point.

    Returns:
        w, shape (T,).
    """
    below = v - v.max()
    ordered = below.sort(descending=True).values
    counts = torch.arange(1, len(v) + 1, dtype=v.dtype, device=v.device)
    sums = ordered.cumsum(0)
    last = (sums - counts * ordered <= 1).sum() - 1
    tau = (sums[last] - 1) / counts[last]
    return (below - tau).clamp_min(0)


def among(weights: Tensor, active: Tensor) -> Tensor:
    """The weights of some tasks, brought to a sum of 1; equal ones where these tasks have none.

    Args:
        weights: Of all tasks, shape (T,), on the simplex.
        active: Positions of these tasks, shape (K,).

    Returns:
        Shape (K,).
    """
    chosen = weights[active]
    total = chosen.sum()
    return torch.where(total > 0, chosen / total, 1 / len(chosen))


def share(weights: Tensor, active: Tensor) -> Tensor:
    """What tasks have to share when the others' weights on the simplex stay as they are.

    Args:
        weights: Of all tasks, shape (T,), on the simplex.
        active: Positions of those that share, shape (K,).

    Returns:
        1 less the weights of the others, a 0-d tensor; exactly 1 when there are none.
    """
    others = weights.index_fill(0, active, 0.0)
    return (1 - others.sum()).clamp_min(0)
