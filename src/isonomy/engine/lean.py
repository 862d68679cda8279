"""The gramian at the parameters in little memory: no task's gradient is held, the weighted one is taken at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from isonomy import distributed
from isonomy.engine.gradients import differentiate, silent
from isonomy.engine.graph import Edge, Graph, edge_of
from isonomy.engine.segments import Segment, plan
from isonomy.errors import IsonomyError
from isonomy.gramian import gramian, weighted_sum

Arrived = dict[Edge, Tensor]
"""Gradients of one task on their way down, by the edge of the graph where they have arrived."""


@dataclass
class Lean:
    """What one backward pass a task has found out about K losses.

    Attributes:
        gramian: Inner products of their gradients at the shared parameters, shape (K, K), float64.
        heads: For each task the gradients of its head.
    """

    gramian: Tensor
    heads: list[dict[Tensor, Tensor]]
    _tops: list[Arrived]
    _graph: Graph

    @torch.no_grad()
    def combine(self, weights: Tensor) -> list[Tensor]:
        """The weighted sum of the tasks' gradients, by one more backward pass of the trunk, which uses up its graph.

        Args:
            weights: Shape (K,).

        Returns:
            A gradient for each shared parameter, zeros where no task reaches it; the mean over all processes.
        """
        roots: Arrived = {}
        for edge in {edge: None for top in self._tops for edge in top}:
            present = [index for index, top in enumerate(self._tops) if edge in top]
            roots[edge] = weighted_sum([self._tops[index].pop(edge) for index in present], weights[present])
        with silent(_leaves(self._graph)):
            found = _pull(roots, [edge_of(tensor) for tensor in self._graph.shared], self._graph.retain)
        pairs = zip(self._graph.shared, found, strict=True)
        row = [torch.zeros_like(tensor) if gradient is None else gradient for tensor, gradient in pairs]
        return distributed.mean_rows([row])[0]


def lean(losses: Sequence[Tensor], seeds: Sequence[Tensor], graph: Graph, simple: bool = False) -> Lean:
    """The gramian at shared parameters by one backward pass a task, which pauses until the others have come as far.

    Args:
        losses: K losses.
        seeds: What each is multiplied by, 0-d tensors.
        graph: Of the losses.
        simple: Whether to pause only where all goes through one node, as for ``plan``.

    Raises:
        IsonomyError: A shared parameter has sparse gradients.
    """
    held: list[Arrived] = [{edge_of(loss): seed} for loss, seed in zip(losses, seeds, strict=True)]
    heads: list[dict[Tensor, Tensor]] = [{} for _ in losses]
    leaves = [{edge_of(leaf): leaf for leaf in leaves} for leaves in graph.heads]
    tops: list[Arrived] = []
    # Whether a compiled trunk can run again shows in its first pass: the heads' graphs have to be there still.
    retain = graph.retain or any("CompiledFunctionBackward" in kinds for kinds in graph.kinds)
    G = torch.zeros(len(losses), len(losses), dtype=torch.float64, device=losses[0].device)
    with silent(_leaves(graph)):
        for number, segment in enumerate(plan(losses, graph, simple)):
            with _stopped(segment):
                for task, wanted, head in zip(held, leaves, heads, strict=True):
                    mine = [edge for edge in wanted if edge[0] in segment.nodes]
                    _advance(task, segment, mine, retain)
                    head.update((wanted[edge], task.pop(edge)) for edge in mine if edge in task)
            if number == 1:
                tops = [dict(task) for task in held]
            G += _inner_products(held, segment).to(G.device)
    return Lean(G, heads, tops, graph)


def _advance(task: Arrived, segment: Segment, heads: list[Edge], retain: bool) -> None:
    """Runs one task's backward pass through a segment, whose part of the graph may go once it is no longer needed."""
    roots = {edge: task.pop(edge) for edge in [*task] if edge[0] in segment.nodes}
    targets = [*segment.targets, *heads]
    for edge, gradient in zip(targets, _pull(roots, targets, retain or not segment.last), strict=True):
        if gradient is not None:
            task[edge] = task[edge] + gradient if edge in task else gradient


@contextmanager
def _stopped(segment: Segment) -> Iterator[None]:
    """Keeps what arrives below a segment from going on from there, to where another way through it leads."""
    handles = [node.register_prehook(lambda arrived: (None,) * len(arrived)) for node in segment.stops]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pull(roots: Arrived, targets: Sequence[Edge], retain: bool) -> list[Tensor | None]:
    """Carries gradients from edges of the graph down to others; None for what they do not reach."""
    if not roots or not targets:
        return [None] * len(targets)
    starts, ends = ([GradientEdge(*edge) for edge in edges] for edges in (roots, targets))
    found = differentiate(starts, ends, [*roots.values()], retain)
    if any(gradient is not None and gradient.layout != torch.strided for gradient in found):
        raise IsonomyError("shared= holds a parameter with sparse gradients: pass shared=feature, or use sparse=False.")
    return found


def _inner_products(held: Sequence[Arrived], segment: Segment) -> Tensor:
    """The part of the gramian that a segment completes, shape (K, K); lets go of what it is made from."""
    G = torch.zeros(len(held), len(held), dtype=torch.float64)
    if segment.parameters:
        G = _of_rows([[_take(task, node) for node in segment.parameters] for task in held])
    for ghost in segment.ghosts:
        G += ghost.gramian([[task.pop(use.edge, None) for use in ghost.uses] for task in held]).to(G.device)
    return G


def _of_rows(rows: list[list[Tensor]]) -> Tensor:
    """G from the tasks' gradients at some of the parameters, which under data parallelism are first averaged."""
    return distributed.total(gramian(distributed.scatter_rows(rows)))


def _take(task: Arrived, leaf: Any) -> Tensor:
    gradient = task.pop((leaf, 0), None)
    return leaf.variable.new_zeros(()).expand_as(leaf.variable) if gradient is None else gradient


def _leaves(graph: Graph) -> list[Tensor]:
    return [*graph.shared, *(leaf for head in graph.heads for leaf in head)]
