"""The non-negative quadratic program that min-norm, CAGrad and the dual cone reduce to."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.solvers.active_set import TOLERANCE, active_set
from isonomy.solvers.pivoting import block_pivoting

# Up to so many numbers, rows of q times T², plain floats are faster than tensors.
_FEW = 1000


def nnqp(H: Tensor, q: Tensor) -> Tensor:
    """Minimises ½ zᵀHz + qᵀz over z ≥ 0, exactly, for one q or for many at once.

    Args:
        H: Positive semi-definite, shape (T, T), float64, on the CPU, diagonal about 1.
        q: Shape (T,) or (B, T).

    Returns:
        z, of the shape of q: z ≥ 0, y = Hz + q ≥ 0 and zᵀy = 0, to about 1e-12 relative to each row's ``max|q|``.
    """
    rows = q.reshape(-1, len(H))
    if rows.numel() * len(H) <= _FEW:
        matrix = H.tolist()
        return q.new_tensor([active_set(matrix, row) for row in rows.tolist()]).reshape(q.shape)
    z = torch.zeros_like(rows)
    tolerance = TOLERANCE * rows.abs().amax(1, keepdim=True)
    todo = (rows < -tolerance).any(1).nonzero().squeeze(1)  # Elsewhere z = 0 solves the program.
    if len(todo):
        z[todo], supports, solved = block_pivoting(H, rows[todo], tolerance[todo])
        if not bool(solved.all()):
            matrix = H.tolist()
            for i, support in zip(todo[~solved].tolist(), supports[~solved], strict=True):
                found = active_set(matrix, rows[i].tolist(), support.nonzero().squeeze(1).tolist())
                z[i] = q.new_tensor(found)
    return z.reshape(q.shape)
