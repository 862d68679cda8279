"""The non-negative quadratic program that min-norm, CAGrad and the dual cone reduce to."""

from __future__ import annotations

import torch
from torch import Tensor

# Relative to max|q|: below it a dual gradient counts as 0.
_TOLERANCE = 1e-12


def nnqp(H: Tensor, q: Tensor) -> Tensor:
    """Minimises ½ zᵀHz + qᵀz over z ≥ 0 by an active set.

    The method of Lawson and Hanson ("Solving Least Squares Problems", 1974, chapter 23), on the matrix of the normal
    equations. A coordinate enters the support only with a strictly positive dual gradient, so the support stays
    linearly independent and a singular H does no harm.

    Args:
        H: Positive semi-definite, shape (T, T), float64, diagonal about 1.
        q: Shape (T,).

    Returns:
        z, shape (T,): z ≥ 0, y = Hz + q ≥ 0 and zᵀy = 0, to about 1e-12 relative to ``max|q|``.
    """
    size = len(q)
    tolerance = _TOLERANCE * float(q.abs().max())
    ridge = 1e-14 * torch.eye(size, dtype=H.dtype, device=H.device) * H.diagonal().mean()
    z = torch.zeros_like(q)
    support = torch.zeros_like(q, dtype=torch.bool)
    banned = torch.zeros_like(q, dtype=torch.bool)
    gradient = -q
    # Every pass adds a coordinate that lowers the objective or bans one; the bound is never met in practice.
    for _ in range(30 * size + 30):  # pragma: no branch
        candidate = gradient.masked_fill(support | banned, -torch.inf)
        entering = int(candidate.argmax())
        if candidate[entering] <= tolerance:
            break
        support[entering] = True
        while True:
            index = support.nonzero().squeeze(1)
            block = H[index][:, index]
            s = torch.linalg.solve(block + ridge[index][:, index], -q[index])
            # One step of refinement takes the ridge's error out again where the block is regular.
            s = s + torch.linalg.solve(block + ridge[index][:, index], -q[index] - block @ s)
            if (s > 0).all():
                z = torch.zeros_like(q).index_put((index,), s)
                break
            # Go as far as z stays non-negative and drop what stops it; by name, since rounding may leave it above 0.
            steps = torch.where(s <= 0, z[index] / (z[index] - s).clamp_min(1e-300), torch.inf)
            step = steps.min()
            z[index] = torch.where(steps > step, (z[index] + step * (s - z[index])).clamp_min(0), 0.0)
            support &= z > 0
        if support[entering]:
            banned.zero_()
        else:
            banned[entering] = True
        gradient = -(H @ z + q)
    return z
