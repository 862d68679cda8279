"""Task gradients at features or parameters, and the scalar that hands the finished ones to ``backward``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from isonomy.errors import IsonomyError
from isonomy.gramian import Gramian, gramian
from isonomy.stages import Level

Edge = tuple[Node, int]


@dataclass
class Graph:
    """What the losses reach.

    Attributes:
        shared: The tensors at which the tasks meet, features or parameters, in the order in which they were given.
        used: For each of these, whether some loss reaches it.
        level: Which of the two they are.
        reached: For each loss, whether it reaches any of ``shared``.
        heads: For each loss, the other leaves it reaches.
        entangled: Whether a task's backward pass runs through nodes that are needed again: by another task or, when a
            feature or a head's weight depends on another feature, by the trunk.
        past: For each loss, whether it reads the trunk past the shared features.
        static: Whether the losses come out of ``DistributedDataParallel(static_graph=True)`` for the first time.
        retain: Whether the user wants the graphs to stay.
    """

    shared: list[Tensor]
    used: list[bool]
    level: Level
    reached: list[bool]
    heads: list[list[Tensor]]
    entangled: bool
    past: list[bool]
    static: bool
    retain: bool


def level_of(shared: Sequence[Tensor]) -> Level:
    """Features are computed, parameters are leaves of the graph."""
    return "parameters" if all(tensor.is_leaf for tensor in shared) else "features"


def as_tensors(what: str, value: object) -> list[Tensor]:
    """A tensor, a module or an iterable of tensors as a list of tensors that need gradients.

    Args:
        what: The argument's name, for the error.
        value: What the user passed.

    Raises:
        IsonomyError: It is none of these, holds nothing that needs a gradient, or mixes features and parameters.
    """
    tensors: list[Any]
    if isinstance(value, Tensor):
        tensors = [value]
    elif isinstance(value, nn.Module):
        tensors = [parameter for parameter in value.parameters() if parameter.requires_grad]
    else:
        try:
            tensors = list(value)  # type: ignore[call-overload]
        except TypeError:
            tensors = [value]
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise IsonomyError(
                    f"{what}= holds a {type(tensor).__name__}: pass the shared feature (a tensor), a module or "
                    "parameters."
                )
        if all(tensor.is_leaf for tensor in tensors):
            tensors = [tensor for tensor in tensors if tensor.requires_grad]
    tensors = list({id(tensor): tensor for tensor in tensors}.values())
    if not tensors:
        raise IsonomyError(
            f"{what}= holds no parameter that needs a gradient: unfreeze one, or pass the shared feature."
        )
    if len({tensor.is_leaf for tensor in tensors}) > 1:
        raise IsonomyError(f"{what}= mixes features and parameters: pass either, the gramian is taken at one level.")
    for tensor in tensors:
        if not tensor.requires_grad:
            raise IsonomyError(
                f"{what}= is a tensor that needs no gradient: it is detached or was computed under no_grad; "
                "pass the feature as the encoder returned it."
            )
    return tensors


def trace(losses: Sequence[Tensor], shared: Sequence[Tensor] | None, retain: bool = False) -> Graph:
    """Walks the losses' graphs down to the shared tensors.

    Args:
        losses: K losses.
        shared: Where the tasks meet; None for the leaves that two or more losses reach (all leaves if there is one
            loss).
        retain: Whether the graphs are to stay.
    """
    stops = {} if shared is None else {_edge(tensor): tensor for tensor in shared}
    leaves: list[dict[Tensor, None]] = []
    nodes: list[set[Node]] = []
    touched: list[set[Edge]] = []
    for loss in losses:
        found: dict[Tensor, None] = {}
        inner: set[Node] = set()
        met: set[Edge] = set()
        for edge in _walk(_edge(loss), stops):
            if edge in stops:
                met.add(edge)
            elif (leaf := _leaf(edge[0])) is not None:
                found[leaf] = None
            else:
                inner.add(edge[0])
        leaves.append(found)
        nodes.append(inner)
        touched.append(met)

    if shared is None:
        every = {leaf: sum(leaf in found for found in leaves) for found in leaves for leaf in found}
        common = {leaf for leaf, count in every.items() if count > 1 or len(losses) == 1}
        order = [leaf for leaf in every if leaf in common]
        heads = [[leaf for leaf in found if leaf not in common] for found in leaves]
        reached = [any(leaf in common for leaf in found) for found in leaves]
        used = [True] * len(order)
        return Graph(order, used, "parameters", reached, heads, True, [False] * len(losses), _static(nodes), retain)

    level = level_of(shared)
    entangled = sum(map(len, nodes)) > len(set().union(*nodes))
    past = [False] * len(losses)
    if level == "features":
        below = [edge for tensor in shared for edge in _walk(_edge(tensor), {}) if edge != _edge(tensor)]
        trunk = {edge[0] for edge in below} | {edge[0] for edge in stops}
        tied = {_leaf(node) for node in trunk}
        past = [not trunk.isdisjoint(inner) for inner in nodes]
        entangled |= any(edge in stops for edge in below) or any(not tied.isdisjoint(found) for found in leaves)
    met_by_any = set().union(*touched)
    used = [edge in met_by_any for edge in stops]
    reached, heads = [bool(met) for met in touched], [list(found) for found in leaves]
    return Graph([*shared], used, level, reached, heads, entangled, past, _static(nodes), retain)


def _static(nodes: Sequence[set[Node]]) -> bool:
    """Whether a DDP model with a static graph waits for its first backward pass."""
    sinks = [node for inner in nodes for node in inner if type(node).__name__ == "_DDPSinkBackward"]
    return any(getattr(sink.ddp_weakref(), "static_graph", False) for sink in sinks)  # type: ignore[attr-defined]


def _edge(tensor: Tensor) -> Edge:
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _leaf(node: Node) -> Tensor | None:
    """The tensor whose ``.grad`` a node writes, if it is such a node."""
    # A user's own autograd.Function may have an attribute called variable too.
    return node.variable if type(node).__name__ == "AccumulateGrad" else None  # type: ignore[attr-defined]


def _walk(root: Edge, stops: dict[Edge, Tensor]) -> Iterator[Edge]:
    """Every edge below a root, once; does not go below the stops."""
    stack = [root]
    seen: set[Edge] = set(stack)
    entered: set[Node] = set()
    while stack:
        edge = stack.pop()
        yield edge
        if edge in stops or edge[0] in entered:
            continue
        entered.add(edge[0])
        for node, number in edge[0].next_functions:
            if node is not None and (node, number) not in seen:
                seen.add((node, number))
                stack.append((node, number))


def pull(
    losses: Sequence[Tensor], seeds: Sequence[Tensor], inputs: Sequence[Tensor], retain: bool = False
) -> list[Tensor | None]:
    """Gradients of Σ seed_k · loss_k with respect to the inputs; None for an input that no loss reaches."""
    if not inputs:
        return []
    # Hooks of these tensors see the balanced gradient, once, when it is handed over.
    hooks = [tensor._backward_hooks for tensor in inputs if tensor._backward_hooks]
    kept = [dict(registered) for registered in hooks]
    for registered in hooks:
        registered.clear()
    try:
        return list(torch.autograd.grad(losses, inputs, grad_outputs=seeds, retain_graph=retain, allow_unused=True))
    finally:
        for registered, before in zip(hooks, kept, strict=True):
            registered.update(before)


def task_gradients(
    losses: Sequence[Tensor], seeds: Sequence[Tensor], graph: Graph
) -> tuple[list[list[Tensor]], list[dict[Tensor, Tensor]]]:
    """One backward pass a task: its gradient at the shared tensors and at its head.

    Args:
        losses: K losses.
        seeds: What each is multiplied by, 0-d tensors.
        graph: Of the losses.

    Returns:
        K rows of J, with zeros where a task does not reach a tensor, and for each task the gradients of its head.
    """
    rows: list[list[Tensor]] = []
    heads: list[dict[Tensor, Tensor]] = []
    size = len(graph.shared)
    with blocked(graph):
        for position, (loss, seed, leaves) in enumerate(zip(losses, seeds, graph.heads, strict=True)):
            last = position == len(losses) - 1 and graph.level == "parameters"
            gradients = pull(
                [loss], [seed], [*graph.shared, *leaves], retain=graph.retain or (graph.entangled and not last)
            )
            rows.append(_filled(graph.shared, gradients[:size]))
            heads.append({leaf: g for leaf, g in zip(leaves, gradients[size:], strict=True) if g is not None})
    return rows, heads


@contextmanager
def blocked(graph: Graph) -> Iterator[None]:
    """Keeps backward passes of the losses from running below the shared features.

    A feature that depends on another, as the stages of a backbone do, would otherwise get the other's share too, once
    here and once when the trunk is run backward.
    """

    def hook(number: int) -> Any:
        return lambda grads: tuple(None if index == number else g for index, g in enumerate(grads))

    edges = [_edge(tensor) for tensor in graph.shared] if graph.level == "features" else []
    handles = [node.register_prehook(hook(number)) for node, number in edges]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def rows_at(losses: Sequence[Tensor], seeds: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The rows of J at any tensors, one backward pass a task; the graph stays."""
    return [
        _filled(tensors, pull([loss], [seed], tensors, retain=True)) for loss, seed in zip(losses, seeds, strict=True)
    ]


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
        Norms (T,) and cosines (T, T) of the gradients of the losses at ``shared``.

    Raises:
        IsonomyError: ``shared`` is not a tensor, a module or parameters, or a loss does not reach it.
    """
    graph = trace(losses, as_tensors("shared", shared))
    if not all(graph.reached):
        raise IsonomyError(
            f"shared= is not reached by loss {graph.reached.index(False)}: pass the feature that its head reads."
        )
    with blocked(graph):
        return Gramian.of(gramian(rows_at(losses, [torch.ones_like(loss) for loss in losses], graph.shared)))


class _Handover(torch.autograd.Function):
    """A scalar whose backward hands on gradients that are already there, times the incoming one."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, finished: list[Tensor], scale: float, *targets: Tensor) -> Tensor:
        ctx.finished, ctx.scale = finished, scale
        return value.clone()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise IsonomyError(
                "create_graph=True: the balanced loss carries finished gradients and cannot be differentiated twice; "
                "put the term that needs second derivatives into one of the losses."
            )
        if ctx.finished is None:
            raise IsonomyError(
                "The balanced loss was backpropagated already and its gradients are handed on only once: "
                "call the balancer again."
            )
        finished, ctx.finished = ctx.finished, None
        factor = incoming / ctx.scale
        # Reading a number costs nothing on a CPU and saves a pass over every gradient; on a GPU it would be a wait.
        if factor.device.type != "cpu" or factor != 1:
            finished = [gradient * factor.to(gradient.dtype) for gradient in finished]
        return (None, None, None, *finished)


def hand_over(value: Tensor, gradients: dict[Tensor, Tensor], scale: float = 1.0) -> Tensor:
    """A 0-d tensor with a given value and given gradients.

    Args:
        value: Shape ().
        gradients: For each tensor that is to receive one, its gradient times ``scale``.
        scale: What the gradients were multiplied by on the way, as by a ``GradScaler``.

    Returns:
        The value; its ``backward`` gives every tensor its gradient, times whatever it is itself multiplied by.
    """
    result: Tensor = _Handover.apply(value.detach(), list(gradients.values()), scale, *gradients)  # type: ignore[no-untyped-call]
    return result
