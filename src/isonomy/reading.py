"""What a user passes, read into task order, before anything is computed or changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, listing, unknown
from isonomy.stages import Stage


def read_losses(
    losses: Mapping[str, Tensor] | Sequence[Tensor] | Tensor, tasks: tuple[str, ...], allow_missing: bool
) -> tuple[list[int], list[Tensor]]:
    """The losses in task order, with the tasks' positions.

    Args:
        losses: By name, in task order, or as one tensor of shape (T,).
        tasks: Names of the T tasks.
        allow_missing: Whether a mapping may leave tasks out.

    Returns:
        Positions and losses of the K tasks that are there.

    Raises:
        IsonomyError: A task is unknown or missing, or a loss is not a floating-point scalar.
    """
    if isinstance(losses, Mapping):
        active, values = _from_mapping(losses, tasks, allow_missing)
    else:
        if isinstance(losses, Tensor) and losses.ndim != 1:
            raise IsonomyError(f"losses has shape {tuple(losses.shape)}: pass one number a task, ({len(tasks)},).")
        active, values = list(range(len(tasks))), list(losses)
        if len(values) != len(tasks):
            raise IsonomyError(
                f"losses holds {len(values)} losses for {len(tasks)} tasks, {listing(tasks)}: pass one each."
            )
    for index, loss in zip(active, values, strict=True):
        if not isinstance(loss, Tensor) or not loss.is_floating_point():
            kind = f"{loss.dtype} tensor" if isinstance(loss, Tensor) else type(loss).__name__
            raise IsonomyError(f"The loss of task {tasks[index]!r} is a {kind}: pass a floating-point tensor.")
        if loss.ndim:
            raise IsonomyError(
                f"The loss of task {tasks[index]!r} has shape {tuple(loss.shape)}: "
                "reduce it to a scalar, as by .mean()."
            )
    return active, values


def read_batches(
    losses: Any, tasks: tuple[str, ...], allow_missing: bool, most: int
) -> tuple[list[int], list[list[Tensor]]]:
    """The losses in task order, for every independent batch of a step.

    Args:
        losses: As for ``read_losses``, or a list of mappings or sequences, one a batch.
        tasks: Names of the T tasks.
        allow_missing: Whether a mapping may leave tasks out; the same ones in every batch.
        most: How many batches the method takes.

    Returns:
        Positions of the K tasks that are there, and for each batch their losses.

    Raises:
        IsonomyError: A batch is unusable, or there are more than the method takes.
    """
    several = isinstance(losses, Sequence) and any(isinstance(batch, Mapping | list | tuple) for batch in losses)
    read = [read_losses(batch, tasks, allow_missing) for batch in (losses if several else [losses])]
    if len(read) not in (1, most):
        takes = f"one batch or {most}" if most > 1 else "one batch"
        raise IsonomyError(f"losses holds {len(read)} batches, and the method takes {takes} a step: pass one mapping.")
    if any(positions != read[0][0] for positions, _ in read):
        raise IsonomyError("losses has other tasks in one batch than in another: pass the same tasks' losses in each.")
    return read[0][0], [values for _, values in read]


def read_metrics(
    metrics: Mapping[str, float] | None, tasks: tuple[str, ...], stages: Sequence[Stage], device: torch.device
) -> Tensor | None:
    """Validation metrics in task order, NaN for a task without one.

    Raises:
        IsonomyError: A task is unknown, or a stage needs metrics and there are none.
    """
    if not metrics:
        for stage in stages:
            if "validation" in stage.uses:
                raise IsonomyError(
                    f"{type(stage).__name__} weighs tasks by their validation metrics: "
                    f"pass them, as in balancer.epoch_end({{{tasks[0]!r}: 0.7}})."
                )
        return None
    named = {str(name): float(value) for name, value in metrics.items()}
    for name in named:
        if name not in tasks:
            raise unknown("task", name, tasks)
    return torch.tensor([named.get(name, torch.nan) for name in tasks], dtype=torch.float64, device=device)


def _from_mapping(
    losses: Mapping[str, Tensor], tasks: tuple[str, ...], allow_missing: bool
) -> tuple[list[int], list[Tensor]]:
    named = {str(name): loss for name, loss in losses.items()}
    for name in named:
        if name not in tasks:
            raise unknown("task", name, tasks)
    missing = [name for name in tasks if name not in named]
    if missing and not allow_missing:
        raise IsonomyError(
            f"losses lacks task {listing(missing)}: pass its loss, or build the balancer with allow_missing=True."
        )
    if not named:
        raise IsonomyError("losses is empty: pass the loss of at least one task.")
    active = [index for index, name in enumerate(tasks) if name in named]
    return active, [named[tasks[index]] for index in active]
