"""One look at the task gradients of anybody's model, which trains nothing and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from isonomy import checks, distributed, engine, reading
from isonomy.engine.graph import Edge, edge_of, leaf_of, walk
from isonomy.errors import IsonomyError, listing
from isonomy.report import StepReport

Losses = Mapping[str, Tensor] | Sequence[Tensor] | Tensor


def probe(
    model: nn.Module,
    losses: Losses | Callable[[nn.Module], Losses],
    shared: Tensor | nn.Module | Sequence[Tensor] | None = None,
) -> StepReport:
    """Measures the task gradients of a model as they are under plain summing.

    Nothing is trained: no ``.grad`` is written, and where ``losses`` is a function, buffers such as those of batch
    normalisation and the generators of random numbers are afterwards as they were. Costs a backward pass a task.

    Args:
        model: Whose gradients count.
        losses: By task name, in task order or as one tensor of shape (T,); or a function of the model that returns
            them, which is called once. The graph of losses that are passed stays.
        shared: Where the tasks meet: a feature, a module or parameters. None for the parameters of the model that two
            or more losses reach.

    Returns:
        Losses, norms, cosines and alignment by task, with weights of 1.

    Raises:
        IsonomyError: A loss is unusable, or does not reach ``shared``.

    Example:
        >>> report = isonomy.diagnostics.probe(model, {"seg": seg_loss, "depth": depth_loss})
        >>> report.norms, report.cosines
    """
    with _untouched(model) if callable(losses) else torch.enable_grad():
        found = losses(model) if callable(losses) else losses
        names = [str(name) for name in found] if isinstance(found, Mapping) else len(found)
        tasks = checks.task_names(names)
        _, values = reading.read_losses(found, tasks, allow_missing=False)
        checks.require_graph(values, list(tasks))
        at = _shared(model, values, tasks) if shared is None else engine.as_tensors("shared", shared)
        with distributed.together():
            checks.require_reach("shared", engine.trace(values, at), list(tasks))
        gramian = engine.measure(values, at)
    heard = distributed.mean(torch.stack([value.detach().double() for value in values]))
    ones = torch.ones_like(heard)
    return StepReport(tasks, heard, ones, ones.clone(), gramian)


def _shared(model: nn.Module, losses: Sequence[Tensor], tasks: Sequence[str]) -> list[Tensor]:
    """The parameters of a model that two or more losses reach."""
    own = set(model.parameters())
    found = [leaf for leaf in engine.trace(losses, None).shared if leaf in own]
    if not found:
        raise IsonomyError(
            f"No parameter of model= is reached by two of the losses of {listing(tasks)}: pass the model that they "
            "were computed with, or shared=feature."
        )
    return found


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Puts buffers and generators back to what they were."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=list(devices)), torch.enable_grad():
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def last_shared_layer(losses: Sequence[Tensor]) -> list[Tensor]:
    """The parameters that every loss reaches and that were read last on the way to them: one layer.

    These are the last weight of two or more dimensions and what was read after it, such as its bias and a
    normalisation. Gradients there cost the heads' backward passes and no more, and stand for the imbalance of all
    shared parameters (Chen et al., "GradNorm", 2018; Guo et al., "Revisit the Imbalance Optimization", 2025).

    Args:
        losses: T scalar losses.

    Returns:
        Its tensors; none if no parameter is reached by every loss.
    """
    return last_layer_of([edge_of(loss) for loss in losses])


def last_layer_of(roots: Sequence[Edge]) -> list[Tensor]:
    """``last_shared_layer`` of what came out of some edges of the graph."""
    reads: dict[Tensor, int] = {}
    reached: list[set[Tensor]] = []
    for root in roots:
        found: set[Tensor] = set()
        for node, _ in walk(root, {}):
            for below, _ in node.next_functions:
                if below is not None and (leaf := leaf_of(below)) is not None:
                    found.add(leaf)
                    reads[leaf] = max(reads.get(leaf, 0), node._sequence_nr())
        reached.append(found)
    common = set.intersection(*reached)
    # Those without a weight among them are all taken.
    last = max((reads[leaf] for leaf in common if leaf.ndim > 1), default=0)
    return [leaf for leaf in reads if leaf in common and reads[leaf] >= last]
