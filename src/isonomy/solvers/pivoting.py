"""Many non-negative quadratic programs with one matrix, whole supports at a time."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 25
_CHANCES = 3
# Makes every block regular. A step of refinement takes its error out again, which matters where a block is nearly
# singular; where it is singular the step leads along the null space, and is taken as long as z stays non-negative.
_RIDGE = 1e-13


def block_pivoting(H: Tensor, q: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Minimises ½ zᵀHz + qᵀz over z ≥ 0 for every row q, by exchanging all wrong coordinates at once.

    Block principal pivoting, Júdice and Pires, "A Block Principal Pivoting Algorithm for Large-Scale Strictly Monotone
    Linear Complementarity Problems", 1994. It ends after a few rounds where H is regular, and may cycle where it is
    not.

    Args:
        H: Positive semi-definite, shape (T, T), diagonal about 1.
        q: Linear terms, shape (B, T).
        tolerance: Up to which a number counts as 0, shape (B, 1).

    Returns:
        z, shape (B, T); the last supports, shape (B, T); whether z solves its program, shape (B,).
    """
    count, size = q.shape
    result, solved, supports = torch.zeros_like(q), q.new_zeros(count, dtype=torch.bool), q < -tolerance
    rows, support = torch.arange(count, device=q.device), supports.clone()
    fewest, chances = (torch.full((count,), most, device=q.device) for most in (size + 1, _CHANCES))
    for _ in range(_ROUNDS):
        factor, index, inside, regular = _factor(H, support)
        z = _solve(factor, index, inside, -q)
        y = z @ H + q
        wrong = torch.where(support, z, y) < -tolerance
        many = wrong.sum(1)
        chances = torch.where(many < fewest, _CHANCES, chances - 1)
        fewest = torch.minimum(fewest, many)
        on = regular & (many > 0) & (chances >= 0)
        over = (~on).nonzero().squeeze(1)
        if len(over):
            out = rows[over]
            refined = z[over] - _solve(factor[over], index[over], inside[over], y[over])
            result[out] = torch.where((refined >= -tolerance[over]).all(1, keepdim=True), refined, z[over])
            solved[out], supports[out] = (regular & (many == 0))[over], support[over]
            if len(over) == len(rows):
                break
        support = support ^ wrong
        if len(over):
            left = on.nonzero().squeeze(1)
            rows, q, tolerance, support = rows[left], q[left], tolerance[left], support[left]
            fewest, chances = fewest[left], chances[left]
    return result.clamp_min(0), supports, solved


def _factor(H: Tensor, support: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cholesky factors of the supports' blocks, shape (B, K, K), and whether each block is regular.

    Between them, shape (B, K): the supports' coordinates, filled up to one length, and which of these belong to them.
    """
    inside, index = support.to(torch.int8).topk(int(support.sum(1).max()), 1)
    inside = inside.bool()
    block = H[index[:, :, None], index[:, None]] * (inside[:, :, None] & inside[:, None])
    block.diagonal(dim1=1, dim2=2).add_(torch.where(inside, _RIDGE, 1.0))
    factor, info = torch.linalg.cholesky_ex(block)
    return factor, index, inside, info == 0


def _solve(factor: Tensor, index: Tensor, inside: Tensor, b: Tensor) -> Tensor:
    """The z that is 0 outside the support and solves Hz = b on it, for b and z of shape (B, T)."""
    s = torch.cholesky_solve((b.gather(1, index) * inside)[..., None], factor)[..., 0]
    return torch.zeros_like(b).scatter_(1, index, s)
