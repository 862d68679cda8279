"""A step on its way through the balancer: what is known of it, the loss side, the weights of the gradient side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isonomy import distributed, engine
from isonomy.doubts import Doubts
from isonomy.engine import Graph, Lean
from isonomy.gramian import Gramian, Rows, finite
from isonomy.stages import GradientBalancer, Heads, Jacobian, LossBalancer, Measurement

if TYPE_CHECKING:
    from isonomy.taken import Taken


@dataclass
class Step:
    """K tasks with a loss, after the loss balancers.

    Attributes:
        losses: On the graph, K for each independent batch, one batch after the other.
        doubts: What has to hold of the numbers, with the tasks' names.
        active: Their positions among all tasks, shape (K,).
        values: Of the losses, the mean over batches and processes, shape (K,); None when there were gradients only.
        loss_weights: ∂(Σ balanced losses)/∂ℓ, shape (K,).
        own: Gradients of the methods' own parameters.
        inputs: What each loss balancer saw, each of shape (K,).
        scale: What gradients are multiplied by on the way, as by a ``GradScaler``.
        scaled: Whether there is a ``GradScaler``, which skips what is not finite.
    """

    losses: list[Tensor]
    doubts: Doubts
    active: Tensor
    values: Tensor | None
    loss_weights: Tensor
    own: dict[Tensor, Tensor]
    inputs: list[Tensor]
    scale: float = 1.0
    scaled: bool = False

    @property
    def batches(self) -> int:
        """How many independent batches there are."""
        return len(self.losses) // len(self.active)

    def own_gradients(self, scale: float) -> dict[Tensor, Tensor]:
        """The gradients that the user's optimiser is to see, times a scale."""
        return {parameter: gradient.to(parameter) * scale for parameter, gradient in self.own.items()}

    def seeds(self, factors: Tensor | float) -> list[Tensor]:
        """What the backward pass of each loss starts with: its effective weight times a factor and the scale.

        Losses of several batches count as their mean.
        """
        weights = (self.loss_weights * factors * (self.scale / self.batches)).unbind()
        return [w.to(loss) for w, loss in zip(weights * self.batches, self.losses, strict=True)]

    def heads_finite(self, heads: Sequence[dict[Tensor, Tensor]]) -> Tensor:
        """Whether the gradients at each task's head are finite, on all processes and for all batches, shape (K,)."""
        rows = [[self.loss_weights.new_zeros(()), *head.values()] for head in heads]
        broken = ~finite(rows).view(self.batches, -1).all(0)
        return distributed.total(broken.double()) == 0


def balance_losses(
    stages: Sequence[LossBalancer], losses: list[Tensor], values: Tensor, active: Tensor, doubts: Doubts
) -> Step:
    """The loss side: effective weights, and the gradients of the methods' own parameters.

    Raises:
        IsonomyError: A loss lies outside the domain of a stage.
    """
    if not stages:
        return Step(losses, doubts, active, values, torch.ones_like(values), {}, [])
    leaf = values.clone().requires_grad_()
    balanced: Tensor = leaf
    inputs: list[Tensor] = []
    own: list[Tensor] = [parameter for stage in stages for parameter in stage.parameters()]
    learns = [parameter.requires_grad for parameter in own]
    try:
        for parameter in own:
            parameter.requires_grad_()
        for stage in stages:
            what = "balanced loss" if inputs else "loss"
            inputs.append(balanced.detach())
            doubts.domain(inputs[-1], stage.domain, type(stage).__name__, what)
            balanced = stage(balanced, active)
        # A stage may train its parameters by other means, such as the losses after the step.
        weights, *gradients = torch.autograd.grad(balanced.sum(), [leaf, *own], allow_unused=True)
    finally:
        for parameter, before in zip(own, learns, strict=True):
            parameter.requires_grad_(before)
    found = {parameter: g for parameter, g in zip(own, gradients, strict=True) if g is not None}
    return Step(losses, doubts, active, values, weights, found, inputs)


def jacobian_of(step: Step, rows: Rows, graph: Graph) -> Jacobian:
    """The rows of a step by batch, as they were before each was divided by the number of batches and unscaled."""
    size, factor = len(step.active), step.batches / step.scale
    if factor != 1:
        # Float16 does not hold the numbers that a scale is there to lift.
        rows = [[part.to(torch.promote_types(part.dtype, torch.float32)) * factor for part in row] for row in rows]
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    return Jacobian(batches, [tensor.detach() for tensor in graph.shared], graph.level)


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


def weigh(
    balancer: GradientBalancer, heads: Heads, gram: Gramian, step: Step, jacobian: Jacobian | None = None
) -> Weighed:
    """Lets the gradient balancer decide, and remember.

    Tasks whose gradient is zero have no direction and are left out; their heads go on by their own gradient, since
    a head that starts at zero could otherwise never leave it.
    """
    measurement = Measurement(gram, step.active, step.values, step.loss_weights, jacobian)
    zero = gram.norms == 0
    present = None if balancer.copes_with_zeros or not zero.any() else (~zero).nonzero().squeeze(1)
    if present is not None:
        if not len(present):
            return Weighed(torch.zeros_like(gram.norms), torch.ones_like(gram.norms), heads)
        measurement = measurement.subset(present)
    found = balancer(measurement)
    step.own.update(zip(balancer.parameters(), balancer.own_gradients(measurement), strict=False))
    balancer.update(measurement, found)
    if isinstance(found, list):
        return Weighed(torch.zeros_like(gram.norms), torch.ones_like(gram.norms), heads, found)
    weights, head_weights = found, balancer.head_weights(measurement, found)
    if balancer.max_norm is not None:
        weights = found * (balancer.max_norm / measurement.gramian.combined_norm(found)).clamp(max=1.0)
    if present is not None:
        weights = torch.zeros_like(gram.norms).index_copy_(0, present, weights)
        head_weights = torch.zeros_like(gram.norms).index_copy_(0, present, head_weights)
    return Weighed(weights, head_weights.masked_fill(zero, 1.0), heads)


def known_gradients(step: Step, graph: Graph, found: Weighed) -> dict[Tensor, Tensor]:
    """The balanced gradients under weights that are known: no task's gradient is taken apart."""
    leaves = list(dict.fromkeys(leaf for head in graph.heads for leaf in head))
    factors = found.head_weights if found.heads == "weighted" else torch.ones_like(found.head_weights)
    with engine.blocked(graph):
        heads = engine.pull(step.losses, step.seeds(factors), leaves, retain=True)
        keep = graph.retain or (graph.entangled and graph.level == "features")
        shared = engine.pull(step.losses, step.seeds(found.weights), graph.shared, retain=keep)
    return engine.accumulated([*zip(graph.shared, shared, strict=True), *zip(leaves, heads, strict=True)])
