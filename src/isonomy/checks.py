"""The one place where input is validated, before anything is computed or changed."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isonomy import distributed
from isonomy.errors import IsonomyError, listing, unknown
from isonomy.stages import Domain, GradientBalancer, Level, LossBalancer, Smoothing, Stage

if TYPE_CHECKING:
    from isonomy.engine import Graph


def task_names(tasks: int | Sequence[str]) -> tuple[str, ...]:
    """Names of the tasks, ``"0"``, ``"1"``, ... for a number.

    Raises:
        IsonomyError: There is no task, or a name occurs twice.
    """
    if isinstance(tasks, str):
        raise IsonomyError(f"tasks={tasks!r} is one string: pass a list of names, [{tasks!r}], or a number.")
    count = operator.index(tasks) if hasattr(tasks, "__index__") else None
    names = tuple(map(str, tasks if count is None else range(count)))  # type: ignore[arg-type]
    if not names:
        raise IsonomyError(f"tasks={tasks!r} holds no task: pass a number of 1 or more, or names.")
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise IsonomyError(f"tasks holds {twice[0]!r} twice: give every task a name of its own.")
    return names


def require_stages(stages: Sequence[Stage]) -> None:
    """Raises an error unless the stages can follow each other."""
    kinds = (LossBalancer, Smoothing, GradientBalancer)
    order = []
    for stage in stages:
        name = type(stage).__name__
        if getattr(stage, "taken", False) or stages.count(stage) > 1:
            raise IsonomyError(f"The stage {name} belongs to another balancer or is there twice: give each its own.")
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


def require_options(
    stages: Sequence[Stage],
    heads: str | None,
    nonfinite: str,
    update_every: int,
    feature_reduce: str,
    own_optimizer: bool,
) -> None:
    """Raises an error unless a balancer's arguments are known and go with its stages."""
    if heads not in (None, "own", "weighted"):
        raise unknown("value of heads", str(heads), ("own", "weighted"))
    if nonfinite not in ("raise", "skip"):
        raise unknown("value of nonfinite", nonfinite, ("raise", "skip"))
    if feature_reduce not in ("flatten", "batch_sum"):
        raise unknown("value of feature_reduce", feature_reduce, ("flatten", "batch_sum"))
    if update_every < 1:
        raise IsonomyError(f"update_every={update_every} must be 1 or more.")
    reads = [type(stage).__name__ for stage in stages if reads_gradients(stage)]
    if update_every > 1 and reads:
        raise IsonomyError(
            f"update_every goes with weights that can be reused; {listing(reads)} needs every step's gradients."
        )
    learned = [type(stage).__name__ for stage in stages if "step_losses" in stage.uses]
    if any("step_losses" in stage.uses for stage in stages[1:]):
        raise IsonomyError(
            f"{listing(learned)} compares the losses before a step and after it: put it first among the stages."
        )
    if learned and not own_optimizer:
        raise IsonomyError(
            f"own_optimizer=False: {listing(learned)} learns from the losses after the step, when your optimiser is "
            "done; leave the argument out."
        )


def reads_gradients(stage: Stage) -> bool:
    """Whether a stage works on the task gradients themselves, not on their gramian."""
    return isinstance(stage, Smoothing) or (isinstance(stage, GradientBalancer) and stage.jacobian)


def require_level(level: Level, levels: Sequence[Level], stages: Sequence[Stage], probed: bool, named: bool) -> None:
    """Raises an error unless the method can take its gradients where the user wants them."""
    names = listing(type(stage).__name__ for stage in stages if reads_gradients(stage))
    smoothed = any(isinstance(stage, Smoothing) for stage in stages)
    if level == "features" and level not in levels:
        reason = (
            "keeps a history of task gradients, and a feature's belong to other samples in every batch"
            if smoothed
            else "compares gradients of one step or parameter with another's, which a feature's cannot be"
        )
        way_out = ", or build the method without it (beta=0)" if smoothed else ""
        raise IsonomyError(f"{names} {reason}: pass shared=module or parameters{way_out}.")
    if level not in levels:
        raise IsonomyError(f"{names} works on a feature, sample by sample: pass shared=feature.")
    if not named and any(isinstance(stage, Smoothing) or (reads_gradients(stage) and stage.lazy) for stage in stages):
        raise IsonomyError(
            f"{names} keeps a history by parameter: pass shared=module or parameters, which fixes their order."
        )
    if probed and any(map(reads_gradients, stages)):
        raise IsonomyError(f"{names} needs the gradients of all shared parameters: leave out probe=.")


def require_everywhere(names: Sequence[str], tasks: Sequence[str], processes: int) -> None:
    """Raises an error for missing tasks under data parallelism, where each process would miss others."""
    if processes > 1 and len(names) < len(tasks):
        raise IsonomyError(
            f"losses lacks tasks, and {processes} processes train together: allow_missing=True works on one process; "
            "pass every task's loss on every process."
        )


def require_state(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raises an error unless a checkpoint is of a balancer with the same tasks and stages."""
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


def require_graph(losses: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raises an error that names the losses that need no gradient."""
    missing = [name for name, loss in zip(names, losses, strict=True) if not loss.requires_grad]
    if missing:
        raise IsonomyError(
            f"The loss of task {listing(missing)} needs no gradient: it is detached or was computed under no_grad."
        )


def require_reach(what: str | None, reached: Sequence[bool], names: Sequence[str]) -> None:
    """Raises an error that names the losses that do not reach the tensors of an argument."""
    missing = [name for name, ok in zip(names, reached, strict=True) if not ok]
    if missing and what is None:
        raise IsonomyError(
            f"The loss of task {listing(missing)} shares no parameter with another task's: "
            "pass shared= to say where the tasks meet."
        )
    if missing:
        raise IsonomyError(
            f"The loss of task {listing(missing)} does not reach {what}=: pass the very tensor that the head reads "
            "(not a copy, a detached one or the feature of another forward pass; with torch.compile, compile encoder "
            "and heads apart; with DistributedDataParallel's find_unused_parameters or static_graph, compute losses "
            "inside forward), or the module or parameters that the tasks share."
        )


def require_graph_fits(graph: Graph, names: Sequence[str]) -> None:
    """Raises an error for graphs whose gradients would come out wrong.

    Losses that depend on the trunk past the shared features, features that retain their gradient,
    ``DistributedDataParallel(static_graph=True)`` at the parameters, and processes that use other parameters.
    """
    bypassing = [name for name, does in zip(names, graph.past, strict=True) if does]
    if bypassing:
        raise IsonomyError(
            f"The loss of task {listing(bypassing)} reaches the trunk past shared= too, as by a skip connection, where "
            "it would not be balanced: pass all features that the heads read as a list, or shared=module."
        )
    if any(tensor.retains_grad for tensor in graph.shared if not tensor.is_leaf):
        raise IsonomyError(
            "shared= retains its gradient, and would add up every task's: leave out retain_grad(); "
            "norms and cosines are in balancer.report."
        )
    if graph.level == "parameters" and graph.static:
        raise IsonomyError(
            "DistributedDataParallel(static_graph=True) averages gradients in a pass that balancing at the parameters "
            "leaves out: pass shared=feature, or static_graph=False."
        )
    if graph.level == "parameters" and not distributed.agree(graph.used, graph.shared[0].device):
        raise IsonomyError(
            "The processes' losses reach different shared parameters, which cannot be averaged: pass shared=feature."
        )


def all_finite(what: str, fine: Tensor, names: Sequence[str], raises: bool) -> bool:
    """Whether all tasks' losses or gradients are finite; an error that names the others, if one is wanted."""
    unusable = [name for name, ok in zip(names, fine.tolist(), strict=True) if not ok]
    if unusable and raises:
        raise IsonomyError(
            f"The {what} of task {listing(unusable)} is not finite: find out why, or build the balancer with "
            "nonfinite='skip' to leave such steps out."
        )
    return not unusable


def require_domain(values: Tensor, names: Sequence[str], domain: Domain, method: str, what: str = "loss") -> None:
    """Raises an error that names the losses outside a method's domain."""
    if domain == "any":
        return
    outside = values < 0 if domain == "nonnegative" else values <= 0
    bad = [(name, value) for name, value, out in zip(names, values.tolist(), outside.tolist(), strict=True) if out]
    if bad:
        name, value = bad[0]
        wanted = "a loss of 0 or more" if domain == "nonnegative" else "a positive loss"
        raise IsonomyError(
            f"The {what} of task {name!r} is {value:.6g}, and {method} needs {wanted}: "
            "add a constant that bounds it below, or choose a method without a logarithm or ratio of losses."
        )


def gradient_side(balancer: GradientBalancer | None) -> GradientBalancer:
    """The gradient balancer, if there is one that can do without losses."""
    if balancer is None:
        raise IsonomyError("The method balances losses and has no gradient side: call the balancer on losses.")
    if balancer.uses_losses:
        raise IsonomyError(f"{type(balancer).__name__} needs the losses besides the gradients: call it on losses.")
    return balancer


def require_matrix(what: str, matrix: Tensor, rows: int, square: bool) -> None:
    """Raises an error unless a user's jacobian (T, P) or gramian (T, T) is finite and has the right shape."""
    shape = f"({rows}, {rows})" if square else f"({rows}, P)"
    if matrix.ndim != 2 or len(matrix) != rows or (square and matrix.shape[1] != rows):
        raise IsonomyError(f"{what} has shape {tuple(matrix.shape)}: pass shape {shape} for {rows} tasks.")
    if not matrix.is_floating_point() or not bool(torch.isfinite(matrix).all()):
        raise IsonomyError(f"{what} is not finite and floating-point: pass finite numbers.")
