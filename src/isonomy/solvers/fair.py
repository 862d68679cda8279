"""Weights that are fair in the sense of α: the Nash bargaining solution and its relatives."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.gramian import Gramian

# Unit gradients whose combination is shorter than this, squared, have no solution: the point is Pareto-stationary.
_STATIONARY = 1e-10
_PRECISION = 1e-13
_PATIENCE = 10


def nash(gramian: Gramian) -> Tensor:
    """Weights a > 0 with G a = 1/a: ``fair`` at α = 1."""
    return fair(gramian, 1.0)


def fair(gramian: Gramian, alpha: float) -> Tensor:
    """Weights w > 0 with G w = w^(−1/α), the stationarity of ½ wᵀGw − Σ ψ(w_t) for the concave ψ' = w^(−1/α).

    Args:
        gramian: Of T gradients, none of them zero.
        alpha: From 0.25 to 20; 1 is the Nash bargaining solution.

    Returns:
        w, shape (T,), float64. At a Pareto-stationary point no solution exists, and w solves the problem with a ridge
        of 1e-12: its entries are large and its aggregate nearly vanishes, the less so the larger α is.
    """
    n, C = gramian.norms.cpu(), gramian.cosines.cpu()
    p = 1 / alpha
    # In w = c u / n the equation reads u^p ∘ Cu = e^k, with k of 0 and below.
    k = (p - 1) * n.log()
    top = k.max()
    u = _central(C, k - top, p)
    # Not NaN either, which stands for a singular system.
    if not u @ C @ u >= _STATIONARY * u.sum() ** 2:
        u = _central(C + 1e-12 * torch.eye(len(C), dtype=C.dtype, device=C.device), k - top, p)
    return ((top / (1 + p)).exp() * u / n).to(gramian.norms.device)


def _central(C: Tensor, k: Tensor, p: float) -> Tensor:
    """The u > 0 with u^p ∘ Cu = e^k, by a primal-dual Newton method.

    As in interior-point methods the products γ = Cu are unknowns of their own, which start positive and are pulled
    together with Cu. Newton's method on p log u + log γ = k takes a handful of steps whatever p is; on u alone it would
    take hundreds where p is far from 1.
    """
    u = (k / (1 + p)).exp()
    # The best multiple to start from; a combination that vanishes only means strong conflict.
    u = u * (u @ u / (u @ C @ u).clamp_min(1e-300)).pow(1 / (1 + p)).clamp_max(1e3)
    products = C @ u
    gamma = torch.where(products > 0, products, (k - p * u.log()).exp())
    sizes = C.abs()
    best, least, stalled = u, torch.inf, 0
    for _ in range(300):  # pragma: no branch
        linear = C @ u - gamma
        power = p * u.log() + gamma.log() - k
        error = float(torch.maximum((linear / (sizes @ u + gamma)).abs(), power.abs()).max())
        if not error >= _PRECISION:
            return u  # NaN where a system was singular
        stalled = stalled + 1
        if error < least:
            best, least, stalled = u, error, 0
        # Close to the solution convergence is quadratic; steps in vain show that only rounding is left.
        if (stalled and least < 1e-9) or (stalled > _PATIENCE and least < 1e-4):
            break
        system = C + torch.diag(p * gamma / u)
        step = torch.linalg.solve_ex(system, -linear - gamma * power)[0] / u
        gamma = (gamma * (1 - power - p * step).clamp_min(0.01)).clamp_min(1e-250)
        u = (u * (1 + step).clamp_min(0.01)).clamp_min(1e-250)
    return best
