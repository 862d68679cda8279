"""The Nash bargaining solution between tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.gramian import Gramian
from isonomy.solvers.min_norm import min_norm

# Cosine matrices whose min-norm point is shorter than this have no bargaining solution: the point is Pareto-stationary.
_STATIONARY = 1e-10


def nash(gramian: Gramian) -> Tensor:
    """Weights a > 0 with G a = 1/a, by Newton's method on a strictly convex potential.

    In a_t = x_t / n_t the equation reads C x = 1/x, the stationarity of ½ xᵀCx − Σ log x_t, which is self-concordant:
    damped Newton steps need no line search.

    Args:
        gramian: Of T gradients, none of them zero.

    Returns:
        a, shape (T,), float64. At a Pareto-stationary point no solution exists, and a solves the problem with a ridge
        of 1e-12: its aggregate nearly vanishes instead of having norm √T, its entries are large.
    """
    C = gramian.cosines.cpu()
    w = min_norm(Gramian(torch.ones_like(gramian.norms.cpu()), C))
    if w @ C @ w < _STATIONARY:
        C = C + 1e-12 * torch.eye(len(C), dtype=C.dtype, device=C.device)
    row_sums = C.sum(1)
    # The best multiple of 1 to start from; a sum that is not positive only means strong conflict.
    x = torch.full_like(w, min(1e3, float((len(C) / row_sums.sum().clamp_min(1e-300)).sqrt())))
    before = torch.inf
    for _ in range(200):  # pragma: no branch
        residual = C @ x - 1 / x
        if bool((residual * x).abs().max() < 1e-13):
            break
        step = torch.linalg.solve(C + torch.diag(1 / x**2), -residual)
        decrement = float((-residual @ step).clamp_min(0).sqrt())
        if before < 0.25 and decrement >= before:  # Where convergence is quadratic, only rounding is left.
            break
        x = x + step * (1.0 if decrement < 0.25 else 1 / (1 + decrement))
        before = decrement
    return x.to(gramian.norms.device) / gramian.norms
