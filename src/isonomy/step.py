"""A step on its way through the balancer: what is known of it, and the loss side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isonomy import distributed
from isonomy.doubts import Doubts
from isonomy.gramian import finite
from isonomy.stages import LossBalancer


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
        weights = self.loss_weights * factors * (self.scale / self.batches)
        return [w.to(loss) for w, loss in zip(weights.unbind() * self.batches, self.losses, strict=True)]

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
