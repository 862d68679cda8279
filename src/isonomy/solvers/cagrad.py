"""CAGrad's problem as a search in one dimension, with a certificate."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.gramian import Gramian
from isonomy.solvers.min_norm import min_norm
from isonomy.solvers.nnqp import nnqp


def cagrad(gramian: Gramian, tasks: int, radius: float) -> Tensor:
    """The correction of the mean gradient that lifts the worst task most: max_d min_t g_t·d, ‖d − g₀‖ ≤ c‖g₀‖.

    For a level μ the shortest x with J(g₀ + x) ≥ μ is a non-negative quadratic program, and ‖x(μ)‖ grows with μ; the
    solution has ‖x(μ)‖ = c‖g₀‖. On a fixed support ‖x‖² is a quadratic in μ, so a few steps find the root, and weak
    duality bounds μ from above at every step.

    Args:
        gramian: Of K gradients, none of them zero.
        tasks: T, by which the sum of the gradients is divided for the mean g₀.
        radius: c ≥ 0.

    Returns:
        v, shape (K,), float64, v ≥ 0: the optimal d is g₀ + Jᵀv.
    """
    scale = gramian.norms.max().cpu()
    n, C = gramian.norms.cpu() / scale, gramian.cosines.cpu()
    G = C * n * n[:, None]
    b = G.sum(1) / tasks
    kappa = radius * float((b.sum() / tasks).clamp_min(0).sqrt())
    best = torch.zeros_like(n)
    if kappa == 0:
        return best.to(gramian.norms.device)

    w = min_norm(Gramian(n, C))
    shortest = float((w @ G @ w).clamp_min(0).sqrt())
    low = float(b.min())
    # Weak duality: no level above w·b + κ‖Jᵀw‖ can be reached, for any w of the simplex.
    high = min(float((b + kappa * n).min()), float(w @ b) + kappa * shortest)
    precision = 1e-13 * (float(b.abs().max()) + kappa)
    mu = high if shortest > 1e-9 else (low + high) / 2
    stalled = 0
    for _ in range(100):  # pragma: no branch
        if high - low <= precision or stalled == 3:
            break
        before = low, high
        z = nnqp(C, (b - mu) / n)
        v = z / n
        products = G @ v
        length = float((v @ products).clamp_min(0).sqrt())
        total = float(v.sum())
        if total > 0:  # pragma: no branch
            high = min(high, (float(v @ b) + kappa * length) / total)
        if length > kappa:
            high = min(high, mu)
        shrink = min(1.0, kappa / length) if length > 0 else 1.0
        value = float((b + shrink * products).min())
        if value > low:
            low, best = value, shrink * v
        root = min(_root(C, n, b, z > 0, kappa), high)
        mu = root if low < root != mu else (low + high) / 2
        stalled = stalled + 1 if (low, high) == before else 0
    return best.to(gramian.norms.device)


def _root(C: Tensor, n: Tensor, b: Tensor, support: Tensor, kappa: float) -> float:
    """The μ at which ‖x(μ)‖ = κ if the support stays; NaN if there is none."""
    index = support.nonzero().squeeze(1)
    sides = torch.stack([1 / n[index], b[index] / n[index]], 1)
    solved, info = torch.linalg.solve_ex(C[index][:, index], sides)
    (a2, a1), (_, a0) = (sides.T @ solved).tolist()
    discriminant = a1 * a1 - a2 * (a0 - kappa * kappa)
    if int(info) or not (a2 > 0 and discriminant >= 0):
        return torch.nan
    return float((a1 + discriminant**0.5) / a2)
