"""What the losses reach: the tensors where the tasks meet, and each task's head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from isonomy.errors import IsonomyError
from isonomy.sharding import under_other_roots
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
        apart: Whether sharded heads are under another root than the shared features.
        kinds: For each loss, the names of the kinds of nodes between it and the shared tensors.
        retain: Whether the user wants the graphs to stay.
        readers: For each loss, the nodes that read shared features: the node, which of its inputs, which feature.
            Empty if the losses share nodes or leaves above the features, or are features themselves.
    """

    shared: list[Tensor]
    used: list[bool]
    level: Level
    reached: list[bool]
    heads: list[list[Tensor]]
    entangled: bool
    past: list[bool]
    static: bool
    apart: bool
    kinds: list[set[str]]
    retain: bool
    readers: list[list[tuple[Node, int, int]]] = field(default_factory=list)

    @property
    def alike(self) -> object:
        """What has to be the same on all processes, since rows at parameters are averaged, and a feature's are not."""
        return self.level == "parameters" and [
            (*leaf.shape, used) for leaf, used in zip(self.shared, self.used, strict=True)
        ]


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
            f"{what}= holds no parameter that needs a gradient: unfreeze one or pass the shared feature; where the "
            "tasks share nothing that learns, add the losses up."
        )
    if len({tensor.is_leaf for tensor in tensors}) > 1:
        raise IsonomyError(f"{what}= mixes features and parameters: pass either, the gramian is taken at one level.")
    for tensor in tensors:
        if not tensor.requires_grad:
            raise IsonomyError(
                f"{what}= is a tensor that needs no gradient: it is detached, was computed under no_grad, or all "
                "layers below it are frozen; pass the feature as the encoder returned it, or add the losses up where "
                "the tasks share nothing that learns."
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
    stops = {} if shared is None else {edge_of(tensor): tensor for tensor in shared}
    leaves: list[dict[Tensor, None]] = []
    nodes: list[set[Node]] = []
    touched: list[set[Edge]] = []
    for loss in losses:
        found: dict[Tensor, None] = {}
        inner: set[Node] = set()
        met: set[Edge] = set()
        for edge in walk(edge_of(loss), stops):
            if edge in stops:
                met.add(edge)
            elif (leaf := leaf_of(edge[0])) is not None:
                found[leaf] = None
            else:
                inner.add(edge[0])
        leaves.append(found)
        nodes.append(inner)
        touched.append(met)

    kinds = [{kind.__name__ for kind in set(map(type, inner))} for inner in nodes]
    if shared is None:
        every = {leaf: sum(leaf in found for found in leaves) for found in leaves for leaf in found}
        common = {leaf for leaf, count in every.items() if count > 1 or len(losses) == 1}
        order = [leaf for leaf in every if leaf in common]
        heads = [[leaf for leaf in found if leaf not in common] for found in leaves]
        reached = [any(leaf in common for leaf in found) for found in leaves]
        used = [True] * len(order)
        past = [False] * len(losses)
        return Graph(order, used, "parameters", reached, heads, True, past, _static(nodes), False, kinds, retain)

    level = level_of(shared)
    entangled = sum(map(len, nodes)) > len(set().union(*nodes))
    past = [False] * len(losses)
    if level == "features":
        below = _below(stops)
        trunk = {edge[0] for edge in below} | {edge[0] for edge in stops}
        tied = {leaf_of(node) for node in trunk}
        past = [not trunk.isdisjoint(inner) for inner in nodes]
        entangled |= any(edge in stops for edge in below) or any(not tied.isdisjoint(found) for found in leaves)
    met_by_any = set().union(*touched)
    used = [edge in met_by_any for edge in stops]
    reached, heads = [bool(met) for met in touched], [list(found) for found in leaves]
    apart = level == "features" and under_other_roots(set().union(*nodes), shared)
    graph = Graph([*shared], used, level, reached, heads, entangled, past, _static(nodes), apart, kinds, retain)
    disjoint = not entangled and sum(map(len, heads)) == len(set().union(*heads))
    if level == "features" and disjoint and not any(edge_of(loss) in stops for loss in losses):
        graph.readers = [_readers(inner, {edge: index for index, edge in enumerate(stops)}) for inner in nodes]
    return graph


def _below(stops: Iterable[Edge]) -> set[Edge]:
    """Every edge below the stops."""
    edges: set[Edge] = set()
    stack = [node for node, _ in stops]
    entered = set(stack)
    while stack:
        for edge in stack.pop().next_functions:
            if edge[0] is not None and edge not in edges:
                edges.add(edge)  # type: ignore[arg-type]
                if edge[0] not in entered:
                    entered.add(edge[0])
                    stack.append(edge[0])
    return edges


def _readers(nodes: Iterable[Node], stops: dict[Edge, int]) -> list[tuple[Node, int, int]]:
    """The nodes right above the stops, with which of their inputs and which stop."""
    return [
        (node, slot, stops[edge]) for node in nodes for slot, edge in enumerate(node.next_functions) if edge in stops
    ]


def _static(nodes: Sequence[set[Node]]) -> bool:
    """Whether a DDP model with a static graph waits for its first backward pass."""
    sinks = [node for inner in nodes for node in inner if type(node).__name__ == "_DDPSinkBackward"]
    return any(getattr(sink.ddp_weakref(), "static_graph", False) for sink in sinks)  # type: ignore[attr-defined]


def edge_of(tensor: Tensor) -> Edge:
    """The edge of the graph that a tensor came out of."""
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def leaf_of(node: Node) -> Tensor | None:
    """The tensor whose ``.grad`` a node writes, if it is such a node."""
    # A user's own autograd.Function may have an attribute called variable too.
    return node.variable if type(node).__name__ == "AccumulateGrad" else None  # type: ignore[attr-defined]


def walk(root: Edge, stops: dict[Edge, Tensor]) -> Iterator[Edge]:
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


def parting(losses: Sequence[Tensor]) -> list[Edge]:
    """Where the ways of losses part: what one loss alone reads of what two or more depend on.

    These are the shared features of a network with one head a task. Numbers are left out, such as a penalty that is
    part of every loss, and so are parameters.
    """
    walks = [[*walk(edge_of(loss), {})] for loss in losses]
    inner = [{node for node, _ in edges} for edges in walks]
    counts = Counter(node for nodes in inner for node in nodes)
    ends = {edge_of(loss): None for loss in losses}
    read = {
        (below, number): None
        for nodes in inner
        for node in nodes
        if counts[node] == 1
        for below, number in node.next_functions
        if below is not None
    }
    return [
        edge
        for edge in ends | read
        if counts[edge[0]] > 1 and leaf_of(edge[0]) is None and len(edge[0]._input_metadata[edge[1]].shape)
    ]
