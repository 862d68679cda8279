"""Recordings made up from random gradients, for figures and pages."""

import torch

from isonomy.diagnostics import Recording
from isonomy.gramian import Gramian


def made(tasks=("seg", "depth", "normal"), looks=20, scales=None, every=10, **facts):
    """A recording of plain summing whose gradients are drawn, each task's as long as its scale."""
    draws = torch.Generator().manual_seed(0)
    size = len(tasks)
    scales = torch.as_tensor(scales or [1.0] * size, dtype=torch.float64)
    jacobians = torch.randn(looks, size, 50, generator=draws, dtype=torch.float64) * scales[:, None]
    found = [Gramian.of(jacobian @ jacobian.T) for jacobian in jacobians]
    ones = torch.ones(looks, size, dtype=torch.float64)
    falling = 1 / torch.arange(1, looks + 1, dtype=torch.float64).sqrt()
    numbers = {
        "losses": scales * falling[:, None],
        "loss_weights": ones,
        "weights": ones,
        "norms": torch.stack([gramian.norms for gramian in found]),
        "cosines": torch.stack([gramian.cosines for gramian in found]),
        "seconds": torch.full((looks,), 0.02, dtype=torch.float64),
    }
    return Recording(tasks=tuple(tasks), steps=every * torch.arange(looks), **{**numbers, **facts})
