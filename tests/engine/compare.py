"""What the lean engine is held against: every task's gradient, taken one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from isonomy.engine import trace
from isonomy.engine.lean import lean
from isonomy.engine.segments import Segment, plan


def same(
    losses: Sequence[Tensor], shared: Iterable[Tensor], tolerance: float = 1e-10, keep: bool = False
) -> list[Segment]:
    """Lean equals one ``torch.autograd.grad`` a task, whose gradients are all there at a time; returns the segments."""
    shared = [tensor for tensor in shared if tensor.requires_grad]
    graph = trace(losses, shared, retain=keep)
    seeds = [torch.full_like(loss, 0.5 + task) for task, loss in enumerate(losses)]
    leaves = list(dict.fromkeys([*shared, *(leaf for head in graph.heads for leaf in head)]))
    rows = []
    for loss, seed in zip(losses, seeds, strict=True):
        found = torch.autograd.grad(loss, leaves, seed, retain_graph=True, allow_unused=True)
        rows.append({leaf: g for leaf, g in zip(leaves, found, strict=True) if g is not None})

    segments = plan(losses, graph)
    kept = trace(losses, shared, retain=True)
    other = lean(losses, seeds, kept, simple=True)
    result = lean(losses, seeds, graph)
    parts = [[row.get(leaf, torch.zeros_like(leaf)).flatten().to(torch.complex128) for leaf in shared] for row in rows]
    J = torch.stack([torch.cat(row) for row in parts])
    norms = torch.linalg.vector_norm(J, dim=1)
    G = (J @ J.mH).real
    assert result.gramian.dtype == torch.float64
    for found in (result, other):
        assert ((found.gramian - G).abs() <= tolerance * norms * norms[:, None]).all()

    for row, leaves_, head in zip(rows, graph.heads, result.heads, strict=True):
        assert head.keys() == {leaf for leaf in leaves_ if leaf in row}
        for leaf, gradient in head.items():
            close(gradient, row[leaf], tolerance)
    weights = torch.linspace(-1, 2, len(losses), dtype=torch.float64)
    combined = result.combine(weights)
    for tensor, gradient in zip(shared, combined, strict=True):
        assert gradient.shape == tensor.shape
        assert gradient.dtype == tensor.dtype
    flat = torch.cat([gradient.flatten().to(J.dtype) for gradient in combined])
    assert torch.linalg.vector_norm(flat - weights.to(J.dtype) @ J) <= tolerance * (weights.abs() * norms).sum()
    return segments


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert torch.linalg.vector_norm(actual - expected) <= tolerance * torch.linalg.vector_norm(expected) + 1e-300


def ghosts(segments: Sequence[Segment]) -> int:
    return sum(len(segment.ghosts) for segment in segments)
