"""The one place where input is validated, before anything is computed or changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, listing, unknown
from isonomy.stages import Domain, GradientBalancer, Level, LossBalancer, Smoothing, Stage


def task_names(tasks: int | Sequence[str]) -> tuple[str, ...]:
    """Names of the tasks, ``"0"``, ``"1"``, ... for a number.

    Raises:
        IsonomyError: There is no task, or a name occurs twice.
    """
    if isinstance(tasks, str):
        raise IsonomyError(f"tasks={tasks!r} is one string: pass a list of names, [{tasks!r}], or a number.")
    names = tuple(str(index) for index in range(tasks)) if isinstance(tasks, int) else tuple(map(str, tasks))
    if not names:
        raise IsonomyError(f"tasks={tasks!r} holds no task: pass a number of 1 or more, or names.")
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise IsonomyError(f"tasks holds {twice[0]!r} twice: give every task a name of its own.")
    return names


def require_stages(
    stages: Sequence[Stage], heads: str | None, nonfinite: str, update_every: int, feature_reduce: str
) -> None:
    """Raises an error unless the stages can follow each other and the balancer's arguments are known."""
    kinds = (LossBalancer, Smoothing, GradientBalancer)
    order = []
    for stage in stages:
        rank = next((rank for rank, kind in enumerate(kinds) if isinstance(stage, kind)), None)
        if rank is None:
            raise IsonomyError(
                f"Balancer takes stages, not a {type(stage).__name__}: pass for example isonomy.loss.Log()."
            )
        order.append(rank)
    if not order:
        raise IsonomyError(
            "Balancer has no stage: pass for example isonomy.loss.Log(), or use isonomy.build(name, tasks)."
        )
    if order != sorted(order) or order.count(2) > 1 or (1 in order and 2 not in order):
        raise IsonomyError(
            f"Stages {listing(type(stage).__name__ for stage in stages)} cannot follow each other: "
            "pass loss balancers, then smoothings, then one gradient balancer."
        )
    if heads not in (None, "own", "weighted"):
        raise unknown("value of heads", str(heads), ("own", "weighted"))
    if nonfinite not in ("raise", "skip"):
        raise unknown("value of nonfinite", nonfinite, ("raise", "skip"))
    if feature_reduce not in ("flatten", "batch_sum"):
        raise unknown("value of feature_reduce", feature_reduce, ("flatten", "batch_sum"))
    if update_every < 1:
        raise IsonomyError(f"update_every={update_every} must be 1 or more.")
    if update_every > 1 and 1 in order:
        raise IsonomyError(
            "update_every goes with weights that can be reused; a smoothing needs every step's gradients."
        )


def require_level(level: Level, levels: Sequence[Level], smoothings: Sequence[Smoothing], probed: bool) -> None:
    """Raises an error unless the method can take its gradients where the user wants them."""
    names = listing(type(smoothing).__name__ for smoothing in smoothings)
    if level not in levels:
        raise IsonomyError(
            f"{names} keeps a history of task gradients, and a feature's belong to other samples in every batch: "
            "pass shared=module or parameters, or build the method without it (beta=0)."
        )
    if smoothings and probed:
        raise IsonomyError(f"{names} needs the gradients of all shared parameters: leave out probe=.")


def require_everywhere(names: Sequence[str], tasks: Sequence[str], processes: int) -> None:
    """Raises an error for missing tasks under data parallelism, where each process would miss others."""
    if processes > 1 and len(names) < len(tasks):
        raise IsonomyError(
            f"losses lacks tasks, and {processes} processes train together: allow_missing=True works on one process; "
            "pass every task's loss on every process."
        )


def require_state(saved: Mapping[str, Any] | None, own: Mapping[str, Any]) -> None:
    """Raises an error unless a checkpoint is of a balancer with the same tasks and stages."""
    if saved is None:
        raise IsonomyError("The state holds no balancer: pass what balancer.state_dict() returned.")
    for what in ("tasks", "stages"):
        if saved[what] != own[what]:
            raise IsonomyError(
                f"The state is of a balancer with {what} {listing(saved[what])}, this one has {listing(own[what])}: "
                "build the balancer as it was when it was saved."
            )
    if len(saved["optimizers"]) != len(own["optimizers"]):
        raise IsonomyError("The state was saved with another own_optimizer=: build the balancer as it was then.")


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


def require_graph(losses: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raises an error that names the losses that need no gradient."""
    missing = [name for name, loss in zip(names, losses, strict=True) if not loss.requires_grad]
    if missing:
        raise IsonomyError(
            f"The loss of task {listing(missing)} needs no gradient: it is detached or was computed under no_grad."
        )


def require_reach(what: str, reached: Sequence[bool], names: Sequence[str]) -> None:
    """Raises an error that names the losses that do not reach the tensors of an argument."""
    missing = [name for name, ok in zip(names, reached, strict=True) if not ok]
    if missing:
        raise IsonomyError(
            f"The loss of task {listing(missing)} does not reach {what}=: pass the very tensor that the head reads "
            "(not a copy, a detached one or the feature of another forward pass; with torch.compile, compile encoder "
            "and heads apart), or the module or parameters that the tasks share."
        )


def require_no_bypass(past: Sequence[bool], names: Sequence[str]) -> None:
    """Raises an error that names the losses that depend on the trunk past the shared features too."""
    bypassing = [name for name, does in zip(names, past, strict=True) if does]
    if bypassing:
        raise IsonomyError(
            f"The loss of task {listing(bypassing)} reaches the trunk past shared= too, as by a skip connection, where "
            "it would not be balanced: pass all features that the heads read as a list, or shared=module."
        )


def require_domain(values: Tensor, names: Sequence[str], domain: Domain, method: str) -> None:
    """Raises an error that names the losses outside a method's domain."""
    if domain == "any":
        return
    outside = values < 0 if domain == "nonnegative" else values <= 0
    bad = [(name, value) for name, value, out in zip(names, values.tolist(), outside.tolist(), strict=True) if out]
    if bad:
        name, value = bad[0]
        wanted = "a loss of 0 or more" if domain == "nonnegative" else "a positive loss"
        raise IsonomyError(
            f"The loss of task {name!r} is {value:.6g}, and {method} needs {wanted}: "
            "add a constant that bounds it below, or choose a method without a logarithm or ratio of losses."
        )


def require_matrix(what: str, matrix: Tensor, rows: int, square: bool) -> None:
    """Raises an error unless a user's jacobian (T, P) or gramian (T, T) is finite and has the right shape."""
    shape = f"({rows}, {rows})" if square else f"({rows}, P)"
    if matrix.ndim != 2 or len(matrix) != rows or (square and matrix.shape[1] != rows):
        raise IsonomyError(f"{what} has shape {tuple(matrix.shape)}: pass shape {shape} for {rows} tasks.")
    if not matrix.is_floating_point() or not bool(torch.isfinite(matrix).all()):
        raise IsonomyError(f"{what} is not finite and floating-point: pass finite numbers.")
