"""The task gradients of a step as they were taken: their gramian, and their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from isonomy import distributed, engine
from isonomy.engine import Graph, Lean
from isonomy.gramian import gramian, weighted_sum
from isonomy.stages import FeatureReduce, Level
from isonomy.step import Step

Memory = Literal["auto", "full", "lean"]


@dataclass(frozen=True)
class Taken:
    """Rows of J at the shared tensors.

    Attributes:
        rows: K of them. Under data parallelism, at the parameters: means over the processes, whole or this process's
            slices of them; at features: of this process's samples.
        heads: For each task the gradients of its head.
        shared: The tensors at which they were taken.
        level: Which these are.
        reduce: What of a feature's gradient is measured.
        sliced: Whether rows at parameters are slices.
    """

    rows: list[list[Tensor]]
    heads: list[dict[Tensor, Tensor]]
    shared: Sequence[Tensor]
    level: Level = "parameters"
    reduce: FeatureReduce = "flatten"
    sliced: bool = False

    @property
    def gramian(self) -> Tensor:
        """Their inner products, shape (K, K), float64; of the whole batch under data parallelism."""
        if self.level == "features" and self.reduce == "flatten":
            return distributed.feature_gramian(gramian(self.rows))
        if self.level == "features":
            # Sums over samples are vectors of one length on every process, as gradients of parameters are.
            sums = [[part.sum(0) if part.ndim else part for part in row] for row in self.rows]
            if distributed.world_size() > 1:
                distributed.require_alike(
                    [part.shape for part in sums[0]],
                    "feature_reduce='batch_sum' adds up samples, which have other shapes on other processes: pad the "
                    "features to one shape, or leave the argument out.",
                )
            return distributed.total(gramian(distributed.scatter_rows(sums)))
        return distributed.total(gramian(self.rows)) if self.sliced else gramian(self.rows)

    def combine(self, weights: Tensor) -> list[Tensor]:
        """Jᵀw for weights w of shape (K,), one tensor per shared tensor; uses the rows up."""
        columns = [*zip(*self.rows, strict=True)][::-1]
        for row in self.rows:
            row.clear()
        # A column is let go of before the next one's sum is made, so that J and Jᵀw are never held both.
        parts = [weighted_sum(columns.pop(), weights) for _ in range(len(columns))]
        return distributed.gather_row(parts, self.shared) if self.sliced else parts


def take(
    step: Step, graph: Graph, probe: Sequence[Tensor] | None, whole: bool, memory: Memory, reduce: FeatureReduce
) -> Taken | Lean:
    """Runs every task's backward pass.

    Args:
        step: After the loss balancers.
        graph: Of its losses.
        probe: The tensors at which to take the gradients instead, the graph staying as it is.
        whole: Whether every process needs whole rows.
        memory: Whether to hold rows at the parameters, ``"full"``, or none at all, or what is faster.
        reduce: What of a feature's gradient is measured.
    """
    seeds = step.seeds(1.0)
    shared: Sequence[Tensor] = graph.shared
    level, heads = graph.level, list[dict[Tensor, Tensor]]()
    if probe is not None:
        shared, level = probe, engine.level_of(probe)
        rows = engine.rows_at(step.losses, seeds, probe)
    elif level == "parameters" and not whole and _lean(memory, step.losses, graph):
        return engine.lean(step.losses, seeds, graph, simple=memory == "auto")
    else:
        rows, heads = engine.task_gradients(step.losses, seeds, graph)
    if level == "parameters":
        rows = distributed.mean_rows(rows) if whole else distributed.scatter_rows(rows)
    return Taken(rows, heads, shared, level, reduce, sliced=level == "parameters" and not whole)


def _lean(memory: Memory, losses: Sequence[Tensor], graph: Graph) -> bool:
    return memory == "lean" or (memory == "auto" and engine.pays(losses, graph))
