"""Task gradients at features or parameters, by one backward pass a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from isonomy import distributed
from isonomy.engine.graph import Edge, Graph, as_tensors, edge_of, parting, trace
from isonomy.errors import IsonomyError
from isonomy.gramian import Gramian, gramian

Ends = Sequence[Tensor] | Sequence[GradientEdge]


def differentiate(outputs: Ends, inputs: Ends, seeds: Sequence[Tensor], retain: bool) -> list[Tensor | None]:
    """``torch.autograd.grad``, for passes of which there are several.

    Raises:
        IsonomyError: ``torch.compile`` made one of the nodes for a single pass. It shows in the first one that keeps
            the graph, so that nothing is used up then.
    """
    try:
        return list(torch.autograd.grad(outputs, inputs, seeds, retain_graph=retain, allow_unused=True))
    except RuntimeError as error:
        if "donated buffer" not in str(error):
            raise
        raise IsonomyError(
            "torch.compile built a backward pass that can run once only, and balancing here runs it for every task: "
            "set torch._functorch.config.donated_buffer = False before anything is compiled."
        ) from error


def pull(losses: Ends, seeds: Sequence[Tensor], inputs: Sequence[Tensor], retain: bool = False) -> list[Tensor | None]:
    """Gradients of Σ seed_k · loss_k with respect to the inputs; None for an input that no loss reaches."""
    if not inputs:
        return []
    with silent(inputs):
        return differentiate(losses, inputs, seeds, retain)


@contextmanager
def silent(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Keeps hooks of tensors from seeing single tasks' gradients; they see the balanced one when it is handed over."""
    hooks = [tensor._backward_hooks for tensor in dict.fromkeys(tensors) if tensor._backward_hooks]
    kept = [dict(registered) for registered in hooks]
    for registered in hooks:
        registered.clear()
    try:
        yield
    finally:
        for registered, before in zip(hooks, kept, strict=True):
            registered.update(before)


def task_gradients(
    losses: Sequence[Tensor], seeds: Sequence[Tensor], graph: Graph
) -> tuple[list[list[Tensor]], list[dict[Tensor, Tensor]]]:
    """Every task's gradient at the shared tensors and at its head.

    One backward pass a task; a single one for all tasks if their heads have nothing in common.

    Args:
        losses: K losses.
        seeds: What each is multiplied by, 0-d tensors.
        graph: Of the losses.

    Returns:
        K rows of J, with zeros where a task does not reach a tensor, and for each task the gradients of its head.
    """
    with blocked(graph):
        if graph.readers:
            return _at_once(losses, seeds, graph)
        rows: list[list[Tensor]] = []
        heads: list[dict[Tensor, Tensor]] = []
        size = len(graph.shared)
        for position, (loss, seed, leaves) in enumerate(zip(losses, seeds, graph.heads, strict=True)):
            last = position == len(losses) - 1 and graph.level == "parameters"
            gradients = pull(
                [loss], [seed], [*graph.shared, *leaves], retain=graph.retain or (graph.entangled and not last)
            )
            rows.append(_filled(graph.shared, gradients[:size]))
            heads.append(_head(leaves, gradients[size:]))
        return rows, heads


def _at_once(
    losses: Sequence[Tensor], seeds: Sequence[Tensor], graph: Graph
) -> tuple[list[list[Tensor]], list[dict[Tensor, Tensor]]]:
    """The task gradients at features from one backward pass, caught where each head reads the features."""
    rows: list[list[Tensor | None]] = [[None] * len(graph.shared) for _ in losses]

    def catch(row: list[Tensor | None], slot: int, index: int) -> Any:
        def hook(inputs: Sequence[Tensor | None], _: Any) -> tuple[Tensor | None, ...]:
            caught, before = inputs[slot], row[index]
            if caught is not None:
                row[index] = caught if before is None else before + caught
            # What is caught need not be added up.
            return tuple(None if number == slot else g for number, g in enumerate(inputs))

        return hook

    handles = [
        node.register_hook(catch(row, slot, index))
        for row, readers in zip(rows, graph.readers, strict=True)
        for node, slot, index in readers
    ]
    try:
        leaves = [leaf for head in graph.heads for leaf in head]
        gradients = iter(pull(losses, seeds, [*leaves, *graph.shared], retain=graph.retain))
    finally:
        for handle in handles:
            handle.remove()
    heads = [_head(head, list(islice(gradients, len(head)))) for head in graph.heads]
    return [_filled(graph.shared, row) for row in rows], heads


def _head(leaves: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> dict[Tensor, Tensor]:
    return {leaf: g for leaf, g in zip(leaves, gradients, strict=True) if g is not None}


@contextmanager
def blocked(graph: Graph) -> Iterator[None]:
    """Keeps backward passes of the losses from running below the shared features.

    A feature that depends on another, as the stages of a backbone do, would otherwise get the other's share too, once
    here and once when the trunk is run backward.
    """
    with stopped([edge_of(tensor) for tensor in graph.shared] if graph.level == "features" else []):
        yield


@contextmanager
def stopped(edges: Sequence[Edge]) -> Iterator[None]:
    """Keeps what arrives at edges from going on below them."""

    def hook(number: int) -> Any:
        return lambda grads: tuple(None if index == number else g for index, g in enumerate(grads))

    handles = [node.register_prehook(hook(number)) for node, number in edges]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def rows_at(losses: Ends, seeds: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The rows of J at any tensors, one backward pass a task; the graph stays."""
    ends = [losses[position : position + 1] for position in range(len(losses))]
    return [_filled(tensors, pull(end, [seed], tensors, retain=True)) for end, seed in zip(ends, seeds, strict=True)]


def _filled(tensors: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
    if any(g is not None and g.layout != torch.strided for g in gradients):
        raise IsonomyError("shared= holds a parameter with sparse gradients: pass shared=feature, or use sparse=False.")
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, gradients, strict=True)]


def accumulated(pairs: Iterable[tuple[Tensor, Tensor | None]]) -> dict[Tensor, Tensor]:
    """Sums of gradients by tensor; a gradient of None counts as no gradient."""
    sums: dict[Tensor, Tensor] = {}
    for tensor, gradient in pairs:
        if gradient is not None:
            sums[tensor] = sums[tensor] + gradient if tensor in sums else gradient
    return sums


def leaf_gradients(losses: Sequence[Tensor], value: float, own: Iterable[Tensor] = ()) -> dict[Tensor, Tensor]:
    """The same number as the gradient of everything the losses reach, and of a method's own parameters."""
    graph = trace(losses, None)
    leaves = dict.fromkeys([*graph.shared, *(leaf for head in graph.heads for leaf in head)])
    leaves |= dict.fromkeys(parameter for parameter in own if parameter.requires_grad)
    return {leaf: torch.full_like(leaf, value) for leaf in leaves}


def measure(losses: Sequence[Tensor], shared: object) -> Gramian:
    """The gramian of the task gradients, for looking: changes nothing and keeps the graph.

    Args:
        losses: T scalar losses.
        shared: A feature, a module or parameters, as for ``Balancer``.

    Returns:
        Norms (T,) and cosines (T, T) of the gradients of the losses at ``shared``; of the whole batch under data
        parallelism.

    Raises:
        IsonomyError: ``shared`` is not a tensor, a module or parameters, or a loss does not reach it.
    """
    graph = trace(losses, as_tensors("shared", shared))
    if not all(graph.reached):
        raise IsonomyError(
            f"shared= is not reached by loss {graph.reached.index(False)}: pass the feature that its head reads."
        )
    with blocked(graph):
        rows = rows_at(losses, [torch.ones_like(loss) for loss in losses], graph.shared)
    if all(tensor.is_leaf for tensor in graph.shared):
        return Gramian.of(gramian(distributed.mean_rows(rows)))
    return Gramian.of(distributed.feature_gramian(gramian(rows)))


def measure_parting(losses: Sequence[Tensor]) -> Gramian | None:
    """The gramian of the task gradients where the ways of the losses part, for looking; as ``measure`` otherwise.

    Args:
        losses: T scalar losses.

    Returns:
        Of norms (T,) and cosines (T, T) at the features that ``parting`` finds; None where there is none, or a loss
        reads none.
    """
    if not (edges := parting(losses)):
        return None
    ends = [GradientEdge(*edge) for edge in edges]
    with stopped(edges):
        found = [differentiate([loss], ends, [torch.ones_like(loss)], retain=True) for loss in losses]
    if any(all(part is None for part in row) for row in found):
        return None
    columns = [
        [torch.zeros_like(next(filter(torch.is_tensor, parts))) if part is None else part for part in parts]
        for parts in zip(*found, strict=True)
    ]
    return Gramian.of(distributed.feature_gramian(gramian([*zip(*columns, strict=True)])))
