"""Whether stages, options, graphs and numbers are fit for use, before anything is computed or changed."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from isonomy import sharding
from isonomy.doubts import NonFinite
from isonomy.errors import IsonomyError, listing, unknown
from isonomy.stages import GradientBalancer, Level, LossBalancer, Smoothing, Stage

if TYPE_CHECKING:
    from isonomy.engine import Graph
    from isonomy.side import GradientSide

_REENTRANT = "CheckpointFunctionBackward"
# What hides, as one node of the graph, tensors that the heads read; and the way out.
_HIDING = {
    "CompiledFunctionBackward": "with torch.compile, compile encoder and heads apart",
    _REENTRANT: "with activation checkpointing, use checkpoint(..., use_reentrant=False)",
    "_DDPSinkBackward": "with DistributedDataParallel's find_unused_parameters or static_graph, call the balancer "
    "inside forward and return what it returns",
}


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
    memory: str,
) -> None:
    """Raises an error unless a balancer's arguments are known and go with its stages."""
    if heads not in (None, "own", "weighted"):
        raise unknown("value of heads", str(heads), ("own", "weighted"))
    if nonfinite not in get_args(NonFinite):
        raise unknown("value of nonfinite", nonfinite, get_args(NonFinite))
    if feature_reduce not in ("flatten", "batch_sum"):
        raise unknown("value of feature_reduce", feature_reduce, ("flatten", "batch_sum"))
    if update_every < 1:
        raise IsonomyError(f"update_every={update_every} must be 1 or more.")
    if memory not in ("auto", "full", "lean"):
        raise unknown("value of memory", memory, ("auto", "full", "lean"))
    reads = [type(stage).__name__ for stage in stages if reads_gradients(stage)]
    if memory == "lean" and reads:
        raise IsonomyError(
            f"memory='lean' holds no task's gradient, and {listing(reads)} works on them: leave the argument out, or "
            "choose a method that needs norms and angles only."
        )
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


def require_everywhere(active: Sequence[object], tasks: Sequence[str], processes: int) -> None:
    """Raises an error for missing tasks under data parallelism, where each process would miss others."""
    if processes > 1 and len(active) < len(tasks):
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


def require_graph(losses: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raises an error that names the losses that need no gradient."""
    missing = [name for name, loss in zip(names, losses, strict=True) if not loss.requires_grad]
    if missing:
        raise IsonomyError(
            f"The loss of task {listing(missing)} needs no gradient: it is detached or was computed under no_grad."
        )


def require_reach(what: str | None, graph: Graph, names: Sequence[str]) -> None:
    """Raises an error that names the losses that do not reach the tensors of an argument."""
    missing = [name for name, ok in zip(names, graph.reached, strict=True) if not ok]
    if not missing:
        return
    met = set().union(*(kinds for kinds, ok in zip(graph.kinds, graph.reached, strict=True) if not ok))
    hints = "".join(f"; {hint}" for kind, hint in _HIDING.items() if kind in met)
    if what is None:
        raise IsonomyError(
            f"The loss of task {listing(missing)} shares no parameter with another task's: "
            f"pass shared= to say where the tasks meet{hints}."
        )
    raise IsonomyError(
        f"The loss of task {listing(missing)} does not reach {what}=: pass the very tensor that the head reads (not a "
        "copy, a detached one, one that was changed in place since or the feature of another forward pass), or the "
        f"module or parameters that the tasks share{hints}."
    )


def require_graph_fits(graph: Graph, names: Sequence[str]) -> None:
    """Raises an error for graphs whose gradients would come out wrong, or not at all.

    Reentrant checkpoints, losses that depend on the trunk past the shared features, features that retain their
    gradient, ``DistributedDataParallel(static_graph=True)``, and heads that ``fully_shard`` does not see.
    """
    reentrant = [name for name, kinds in zip(names, graph.kinds, strict=True) if _REENTRANT in kinds]
    if reentrant:
        raise IsonomyError(
            f"The loss of task {listing(reentrant)} runs through reentrant activation checkpointing, which yields no "
            "task's gradient by itself: use checkpoint(..., use_reentrant=False)."
        )
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
    if graph.static:
        raise IsonomyError(
            "DistributedDataParallel(static_graph=True) averages gradients after the first pass through its outputs, "
            "which is one that only measures: call the balancer inside forward and return what it returns, or use "
            "static_graph=False."
        )
    if graph.apart:
        raise IsonomyError(
            "fully_shard would not reduce the heads' gradients, as they are under another root than shared=: call "
            "fully_shard on the whole model too, and pass the feature as the wrapped model or trunk returned it."
        )


def require_unsharded(graph: Graph) -> None:
    """Raises an error if the gradients are to be handed to parameters that ``fully_shard`` has sharded.

    To be called before gradients are taken, and again after: parameters of the root show only then.
    """
    leaves = [*graph.shared, *(leaf for head in graph.heads for leaf in head)]
    if graph.level == "parameters" and (
        any(map(sharding.is_sharded, leaves)) or any(sharding.INPUT in kinds for kinds in graph.kinds)
    ):
        raise IsonomyError(
            "shared= holds parameters that are sharded over the processes, or the heads do, as by fully_shard, which "
            "would not reduce gradients that are handed to them: pass shared=feature."
        )


def gradient_side(side: GradientSide | None) -> GradientSide:
    """The gradient side, if there is one that can do without losses."""
    if side is None:
        raise IsonomyError("The method balances losses and has no gradient side: call the balancer on losses.")
    if side.balancer.uses_losses:
        raise IsonomyError(f"{type(side.balancer).__name__} needs the losses besides the gradients: call it on losses.")
    return side


def require_matrix(what: str, matrix: Tensor, rows: int, square: bool) -> None:
    """Raises an error unless a user's jacobian (T, P) or gramian (T, T) is finite and has the right shape."""
    shape = f"({rows}, {rows})" if square else f"({rows}, P)"
    if matrix.ndim != 2 or len(matrix) != rows or (square and matrix.shape[1] != rows):
        raise IsonomyError(f"{what} has shape {tuple(matrix.shape)}: pass shape {shape} for {rows} tasks.")
    if not matrix.is_floating_point() or not bool(torch.isfinite(matrix).all()):
        raise IsonomyError(f"{what} is not finite and floating-point: pass finite numbers.")
