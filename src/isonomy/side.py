"""The gradient side of a step: task gradients, smoothings, the gradient balancer, the balanced gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from isonomy import checks, engine
from isonomy.engine import Graph, Lean
from isonomy.gramian import Gramian, Rows, finite
from isonomy.stages import FeatureReduce, GradientBalancer, Heads, Jacobian, Level, Measurement, Smoothing
from isonomy.step import Step
from isonomy.taken import Memory, Taken, take


@dataclass(frozen=True)
class Weighed:
    """What a gradient balancer made of a step.

    Attributes:
        weights: At the shared parameters, shape (K,).
        head_weights: At the heads, if they are weighted, shape (K,).
        heads: Whether they are.
        aggregate: In place of the weights, from a method that works on the elements of J.
    """

    weights: Tensor
    head_weights: Tensor
    heads: Heads
    aggregate: list[Tensor] | None = None

    @property
    def reported(self) -> Tensor | None:
        """The weights, if the method has any."""
        return self.weights if self.aggregate is None else None

    def combine(self, taken: Taken | Lean, scale: float, shared: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of the shared tensors, in their dtypes, from task gradients as taken, times a scale."""
        if self.aggregate is None:
            parts = taken.combine(self.weights * scale)
        else:
            parts = [part * scale for part in self.aggregate] if scale != 1 else self.aggregate
        return [part.to(tensor.dtype) for part, tensor in zip(parts, shared, strict=True)]

    def at_heads(self, heads: Sequence[dict[Tensor, Tensor]], batches: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The gradients of the heads' leaves, from each task's own, batch by batch."""
        for weight, head in zip(self.head_weights.repeat(batches), heads, strict=False):
            for leaf, gradient in head.items():
                yield leaf, gradient * weight.to(gradient) if self.heads == "weighted" else gradient


@dataclass(frozen=True)
class Measured:
    """What came out of a step.

    Attributes:
        gradients: The balanced ones, times the step's scale.
        weighed: What the gradient balancer made of the gramian, now or earlier.
        gramian: Norms and cosines of the K task gradients, if they were taken.
    """

    gradients: dict[Tensor, Tensor]
    weighed: Weighed
    gramian: Gramian | None = None


@dataclass(frozen=True)
class GradientSide:
    """What follows the loss balancers.

    Attributes:
        balancer: The gradient balancer.
        smoothings: What goes before it.
        heads: Which gradients the heads get.
        memory: What is held while task gradients are taken at the parameters.
        reduce: What of a feature's gradient is measured.
    """

    balancer: GradientBalancer
    smoothings: Sequence[Smoothing] = ()
    heads: Heads = "own"
    memory: Memory = "auto"
    reduce: FeatureReduce = "flatten"

    @property
    def levels(self) -> tuple[Level, ...]:
        """Where gradients can be taken."""
        return tuple(
            level for level in self.balancer.levels if all(level in stage.levels() for stage in self.smoothings)
        )

    def measure(self, step: Step, graph: Graph, probe: Sequence[Tensor] | None) -> Measured | None:
        """Takes every task's gradient and weighs them; None if the step is to be skipped.

        Args:
            step: After the loss balancers.
            graph: Of its losses.
            probe: The tensors at which to measure instead.

        Raises:
            IsonomyError: A gradient is not finite, and that is an error.
        """
        whole, scale, jacobian = bool(self.smoothings) or self.balancer.jacobian, step.scale, None
        taken = take(step, graph, probe, whole, self.memory, self.reduce)
        checks.require_unsharded(graph)
        if whole and isinstance(taken, Taken):
            jacobian, scale = _jacobian(step, taken.rows, graph), 1.0
            taken = replace(taken, rows=[*map(list, jacobian.rows)])
        if self.smoothings and isinstance(taken, Taken):
            step.doubts.finite("gradient", finite(taken.rows))
        else:
            gram = Gramian.of(taken.gramian if scale == 1 else taken.gramian / scale**2)
            step.doubts.finite("gradient", gram.norms.isfinite())
        if step.scaled and taken.heads:  # Where a head alone overflows, the step is skipped as well.
            step.doubts.finite("gradient", step.heads_finite(taken.heads))
        if not step.doubts.settle():
            return None
        if self.smoothings and isinstance(taken, Taken):
            for smoothing in self.smoothings:
                taken = replace(taken, rows=smoothing(taken.rows, step.active))
            gram = Gramian.of(taken.gramian)
            jacobian = Jacobian([taken.rows], graph.shared, graph.level)
        found = self.weigh(gram, step, jacobian if self.balancer.jacobian else None)
        if probe is not None:
            return Measured(self._weighted(step, graph, found), found, gram)
        shared = found.combine(taken, step.scale / scale, graph.shared)
        met = [pair for pair, used in zip(zip(graph.shared, shared, strict=True), graph.used, strict=True) if used]
        gradients = engine.accumulated([*met, *found.at_heads(taken.heads, step.batches)])
        return Measured(gradients, found, gram)

    def weigh(self, gram: Gramian, step: Step, jacobian: Jacobian | None = None) -> Weighed:
        """Lets the gradient balancer decide, and remember.

        Tasks whose gradient is zero have no direction and are left out; their heads go on by their own gradient, since
        a head that starts at zero could otherwise never leave it.
        """
        balancer = self.balancer
        measurement = Measurement(gram, step.active, step.values, step.loss_weights, jacobian)
        zero = gram.norms == 0
        present = None if balancer.copes_with_zeros or not zero.any() else (~zero).nonzero().squeeze(1)
        if present is not None:
            if not len(present):
                return Weighed(torch.zeros_like(gram.norms), torch.ones_like(gram.norms), self.heads)
            measurement = measurement.subset(present)
        found = balancer(measurement)
        step.own.update(zip(balancer.parameters(), balancer.own_gradients(measurement), strict=False))
        balancer.update(measurement, found)
        if isinstance(found, list):
            return Weighed(torch.zeros_like(gram.norms), torch.ones_like(gram.norms), self.heads, found)
        weights, head_weights = found, balancer.head_weights(measurement, found)
        if balancer.max_norm is not None:
            weights = found * (balancer.max_norm / measurement.gramian.combined_norm(found)).clamp(max=1.0)
        if present is not None:
            weights = torch.zeros_like(gram.norms).index_copy_(0, present, weights)
            head_weights = torch.zeros_like(gram.norms).index_copy_(0, present, head_weights)
        return Weighed(weights, head_weights.masked_fill(zero, 1.0), self.heads)

    def reuse(self, step: Step, graph: Graph, found: Weighed) -> Measured | None:
        """Takes the balanced gradients under weights of an earlier step; None if the step is to be skipped.

        Raises:
            IsonomyError: What has to hold of the losses does not.
        """
        return Measured(self._weighted(step, graph, found), found) if step.doubts.settle() else None

    def _weighted(self, step: Step, graph: Graph, found: Weighed) -> dict[Tensor, Tensor]:
        """The balanced gradients under weights that are known: no task's gradient is taken apart."""
        leaves = list(dict.fromkeys(leaf for head in graph.heads for leaf in head))
        factors = found.head_weights if found.heads == "weighted" else torch.ones_like(found.head_weights)
        with engine.blocked(graph):
            heads = engine.pull(step.losses, step.seeds(factors), leaves, retain=True)
            keep = graph.retain or (graph.entangled and graph.level == "features")
            shared = engine.pull(step.losses, step.seeds(found.weights), graph.shared, retain=keep)
        return engine.accumulated([*zip(graph.shared, shared, strict=True), *zip(leaves, heads, strict=True)])


def _jacobian(step: Step, rows: Rows, graph: Graph) -> Jacobian:
    """The rows of a step by batch, as they were before each was divided by the number of batches and unscaled."""
    size, factor = len(step.active), step.batches / step.scale
    if factor != 1:
        # Float16 does not hold the numbers that a scale is there to lift.
        rows = [[part.to(torch.promote_types(part.dtype, torch.float32)) * factor for part in row] for row in rows]
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    return Jacobian(batches, [tensor.detach() for tensor in graph.shared], graph.level)
