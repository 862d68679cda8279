"""The graph in segments: where backward passes may pause, so that little is held for all tasks at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from isonomy import distributed
from isonomy.engine.ghost import Ghost, Parents, ghost_of, readers_of
from isonomy.engine.graph import Edge, Graph, edge_of, leaf_of

# As many multiplications take as long as the passes over a number of a gradient that is held.
_PASSES = 64


@dataclass(frozen=True)
class Segment:
    """A stretch of the graph that one task's backward pass after the other runs through.

    Attributes:
        nodes: What it runs.
        stops: The nodes below it that it brings gradients to, or that an earlier one did.
        targets: The edges whose gradients it is to give: where it pauses, the uses of ghosts, parameters.
        parameters: The nodes of the shared parameters whose gradients are complete after it.
        ghosts: Those that are complete after it.
        last: Whether no other pass comes through the nodes that a task's has come through.
    """

    nodes: Set[Any]
    stops: Set[Any]
    targets: list[Edge]
    parameters: list[Any]
    ghosts: list[Ghost]
    last: bool


def plan(losses: Sequence[Tensor], graph: Graph, simple: bool = False) -> list[Segment]:
    """The segments from the losses down, two or more.

    The first ends where losses meet, the second where shared parameters are read; either may be empty.

    For every task are held: the gradients where its pass pauses, and those of the parameters and ghosts on the way
    there. No segment holds more than some step from one node to the next has to, and there are as few as that allows.

    Args:
        losses: K losses.
        graph: Of them.
        simple: Whether to pause only where all goes through one node, whatever is held then. Where a skip leads past a
            pause, nothing arrives on the way to the lower place, and the hooks of activations there are given None.
    """
    roots = [edge_of(loss) for loss in losses]
    parents, common = _read(roots)
    leaves = [node for node, _ in map(edge_of, graph.shared) if node in parents]
    alone = distributed.world_size() == 1  # products of different processes' gradients have no ghosts
    found = {leaf: ghost_of(leaf, parents, len(losses)) for leaf in leaves} if alone else {}
    ghosts = [ghost for ghost in found.values() if ghost is not None]
    readers = {node for leaf in leaves for node, _, _ in readers_of(leaf, parents)[0]}
    line = _Line(
        roots, parents, (common, readers | {*leaves}), [leaf for leaf in leaves if not found.get(leaf)], ghosts
    )
    cuts = line.cuts()
    while unfit := {edge for cut in cuts if cut for edge in line.unfit(cut, simple)}:
        line.closed |= unfit
        cuts = line.cuts()
    pairs = itertools.pairwise([*cuts, len(line.nodes)])
    return [line.segment(start, stop, number == 0) for number, (start, stop) in enumerate(pairs)]


def pays(losses: Sequence[Tensor], graph: Graph) -> bool:
    """Whether pausing for ghosts takes less time than holding every task's gradient, as far as shapes tell.

    It saves K weight gradients, with the passes over them, of every weight that has a ghost; it costs the ghosts and
    one more backward pass through the trunk. Counted in multiplications, and measured on a CPU alone.
    """
    tasks = len(losses)
    if tasks < 2 or distributed.world_size() > 1 or losses[0].device.type != "cpu":
        return False
    parents, _ = _read([edge_of(loss) for loss in losses])
    saved = 0
    for leaf, _ in map(edge_of, graph.shared):
        if leaf in parents:
            numel, ghost = leaf.variable.numel(), ghost_of(leaf, parents, tasks)  # type: ignore[attr-defined]
            results = (_numel((node, 0)) for node, _, _ in readers_of(leaf, parents)[0])
            many = sum(results) // max(leaf.variable.shape[:1].numel(), 1)  # type: ignore[attr-defined]
            saved -= 2 * many * numel
            if ghost is not None:
                saved += tasks * (ghost.height + _PASSES) * numel - ghost.work(tasks)
    return saved > 0


def _read(roots: Sequence[Edge]) -> tuple[Parents, set[Any]]:
    """Who reads every node; and where a loss first meets what another one has reached."""
    parents: dict[Any, list[tuple[Any, int]]] = {}
    owner: dict[Any, int] = {}
    common: set[Any] = set()
    for number, (root, _) in enumerate(roots):
        if root in parents:
            common.add(root)
            continue
        parents[root], owner[root], stack = [], number, [root]
        while stack:
            node = stack.pop()
            for slot, (child, _) in enumerate(node.next_functions):
                if child is None:
                    continue
                if child not in parents:
                    parents[child], owner[child] = [], number
                    stack.append(child)
                elif owner[child] != number and leaf_of(child) is None:
                    common.add(child)
                parents[child].append((node, slot))
    return parents, common


class _Line:
    """The nodes in an order in which backward passes can run them; a cut is the number of nodes before it.

    Args:
        roots: The edges of the losses.
        parents: Of their graphs.
        late: The nodes to run as late as possible, and those to run later still.
        leaves: The shared parameters that have no ghost.
        ghosts: Of the others.
    """

    def __init__(
        self,
        roots: Sequence[Edge],
        parents: Parents,
        late: tuple[Set[Any], Set[Any]],
        leaves: Sequence[Any],
        ghosts: Sequence[Ghost],
    ) -> None:
        self.leaves, self.ghosts = leaves, ghosts
        bypassed = {node for ghost in ghosts for node in ghost.bypassed}
        self.nodes = _ordered(roots, parents, late, bypassed)
        place = self.place = {node: position for position, node in enumerate(self.nodes)}
        # The nodes that bring an edge something, -1 being the loss itself.
        self.givers: dict[Edge, list[int]] = {edge: [-1] for edge in roots}
        for position, node in enumerate(self.nodes):
            for edge in node.next_functions:
                if edge[0] is not None and edge[0] not in bypassed:
                    self.givers.setdefault(edge, []).append(position)
        self.complete = [max(place[use.node] for use in ghost.uses) for ghost in ghosts]
        starts = [min((place[node] for node in nodes if node in place), default=0) for nodes in late]
        self.first = (min(starts), starts[1])
        self.closed: set[Edge] = set()
        self._open: set[Edge] = set()
        # What is held for a task at every cut, and what a segment holds besides for having run a node.
        change, self.inside = [0] * (len(self.nodes) + 1), [0] * len(self.nodes)
        for edge, givers in self.givers.items():
            change[givers[0] + 1] += _numel(edge)
            change[place[edge[0]] + 1] -= _numel(edge)
        self.across = list(itertools.accumulate(change))
        for edge in self._wanted():
            self.inside[place[edge[0]]] += _numel(edge)
        if distributed.world_size() > 1:  # the same cuts everywhere, whatever the sizes of the batches
            distributed.require_alike(
                [type(node).__name__ for node in self.nodes],
                "memory='lean' pauses all processes at the same places, and their losses were computed by different "
                "operations: use memory='full', or pass shared=feature.",
            )
            sizes = distributed.most(*self.across, *self.inside)
            self.across, self.inside = sizes[: len(self.across)], sizes[len(self.across) :]

    def _wanted(self) -> Iterator[Edge]:
        """The edges whose gradients make up the gramian."""
        yield from ((leaf, 0) for leaf in self.leaves)
        yield from (use.edge for ghost in self.ghosts for use in ghost.uses)

    def crossing(self, cut: int) -> list[Edge]:
        """The edges that are given something before a cut and are needed after it."""
        return [edge for edge, givers in self.givers.items() if givers[0] < cut <= self.place[edge[0]]]

    def unfit(self, cut: int, simple: bool) -> Iterator[Edge]:
        """The edges that must not cross a cut: hooks change gradients at them, or between where a pass would pause."""
        crossing = self.crossing(cut)
        yield from filter(self.hooked, crossing)
        if len({node for node, _ in crossing}) < 2:
            return
        if simple:
            yield from crossing
            return
        # On the way to the lower places nothing arrives, which such a hook could not change.
        lowest = max(self.place[node] for node, _ in crossing)
        for edge, givers in self.givers.items():
            if cut <= givers[0] and self.place[edge[0]] <= lowest and self.hooked(edge):
                yield from (other for other in crossing if self.place[other[0]] >= self.place[edge[0]])

    def cuts(self) -> list[int]:
        """Where the segments start."""
        size = len(self.nodes)
        closed = {cut for edge in self.closed for cut in range(self.givers[edge][0] + 1, self.place[edge[0]] + 1)} - {0}
        meet, start = (next(cut for cut in range(first, -1, -1) if cut not in closed) for first in self.first)
        limit = max(
            inside + across for inside, across in zip(self.inside[start:], self.across[start + 1 :], strict=True)
        )
        cuts = [0, meet, start]
        while cuts[-1] < size:
            best, held = 0, 0
            for cut in range(cuts[-1] + 1, size + 1):
                held += self.inside[cut - 1]
                if best and held > limit:
                    break
                if cut not in closed and (not best or held + self.across[cut] <= limit):
                    best = cut
            cuts.append(best)
        return cuts[:-1]

    def hooked(self, edge: Edge) -> bool:
        """Whether a hook changes the gradient that arrives at an edge, which a pause would let it do twice."""
        if self.givers[edge] != [-1] and edge not in self._open:
            about = edge[0]._input_metadata[edge[1]]
            nothing = torch.zeros((), dtype=about.dtype, device=about.device).expand(about.shape)
            at = [GradientEdge(*edge)]
            if torch.autograd.grad(at, at, [nothing], retain_graph=True)[0] is not nothing:
                return True
            self._open.add(edge)
        return False

    def segment(self, start: int, stop: int, apart: bool) -> Segment:
        """The segment between two cuts; ``apart`` if losses do not meet in it."""
        nodes = set(self.nodes[start:stop])
        leaves = [leaf for leaf in self.leaves if leaf in nodes]
        crossing = self.crossing(stop)
        stops = {node for node, _ in crossing} - nodes
        pauses = (edge for edge in crossing if any(start <= giver < stop for giver in self.givers[edge]))
        targets = dict.fromkeys([*pauses, *(edge for edge in self._wanted() if edge[0] in nodes)])
        ghosts = [ghost for ghost, last in zip(self.ghosts, self.complete, strict=True) if start <= last < stop]
        # Several stops may have common nodes between them, which all passes come through.
        return Segment(nodes, stops, list(targets), leaves, ghosts, apart and len(stops) < 2)


def _ordered(roots: Sequence[Edge], parents: Parents, late: tuple[Set[Any], Set[Any]], bypassed: Set[Any]) -> list[Any]:
    """Every node after all that read it; leaves as soon, and the late ones as late as they can."""
    waiting = {node: len(readers) for node, readers in parents.items()}
    order: list[Any] = []
    ready: list[Any] = []
    soon: list[Any] = []
    last: list[Any] = []

    def free(node: Any) -> None:
        if leaf_of(node) is not None:
            order.append(node)
        else:
            (last if node in late[1] else soon if node in late[0] else ready).append(node)

    for node in dict.fromkeys(node for node, _ in roots):
        if not waiting[node]:
            free(node)
    while queue := ready or soon or last:
        node = queue.pop()
        order.append(node)
        for child, _ in node.next_functions:
            if child is not None and child not in bypassed:
                waiting[child] -= 1
                if not waiting[child]:
                    free(child)
    return order


def _numel(edge: Edge) -> int:
    return math.prod(edge[0]._input_metadata[edge[1]].shape)
