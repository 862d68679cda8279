"""Histories of the task gradients: a row of P numbers for each task, in a stage's buffer."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.gramian import Rows
from isonomy.stages import Stage


def history(stage: Stage, name: str, rows: Rows, tasks: int) -> Tensor:
    """A stage's lazy buffer of shape (T, P), zeros before the first step; float32 at least.

    Args:
        stage: Whose buffer it is.
        name: Of the buffer, one of ``stage.lazy``.
        rows: Rows of this step, P numbers each.
        tasks: T.

    Raises:
        IsonomyError: The shared parameters have changed their number.
    """
    size = sum(part.numel() for part in rows[0])
    kept: Tensor | None = getattr(stage, name)
    if kept is None:
        wide = functools.reduce(torch.promote_types, (part.dtype for part in rows[0]), torch.float32)
        kept = torch.zeros(tasks, size, dtype=wide, device=rows[0][0].device)
        setattr(stage, name, kept)
    elif kept.shape[1] != size:
        raise IsonomyError(
            f"{type(stage).__name__}: the shared parameters hold {size} numbers now and {kept.shape[1]} before; "
            "build a new balancer when the shared part of the model changes."
        )
    return kept


def require_real(stage: Stage, rows: Rows) -> None:
    """Raises an error for complex gradients, whose numbers have no sign and no square of the real kind."""
    if any(part.is_complex() for part in rows[0]):
        raise IsonomyError(
            f"{type(stage).__name__} works on the gradients' numbers, and shared= holds complex ones: "
            "choose a method that works on norms and angles, such as 'max_norm'."
        )


def views(row: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """A row of a history, shape (P,), as views with the shapes of the shared tensors."""
    parts: Sequence[Tensor] = torch.split(row, [part.numel() for part in like])
    return [view.view_as(part) for view, part in zip(parts, like, strict=True)]


def blend(kept: Tensor, rows: Rows, active: Tensor, rates: Tensor) -> list[list[Tensor]]:
    """Moves each task's row of a history towards its gradient: y ← (1 − rate) y + rate · g.

    Args:
        kept: The history, shape (T, P).
        rows: For each of K tasks, its gradient with respect to each shared tensor.
        active: Positions of these tasks, shape (K,).
        rates: Shape (K,).

    Returns:
        The moved rows, as views of the history.
    """
    moved = []
    for row, task, rate in zip(rows, positions(active, len(kept)), rates.to(kept.real.dtype).unbind(), strict=True):
        parts = views(kept[task], row)
        for part, gradient in zip(parts, row, strict=True):
            part.lerp_(gradient.to(part.dtype), rate.to(part.dtype))
        moved.append(parts)
    return moved


def positions(active: Tensor, tasks: int) -> Sequence[int]:
    """Positions of tasks, shape (K,), as numbers; nothing is read from a GPU where all tasks take part."""
    return range(tasks) if len(active) == tasks else active.tolist()
