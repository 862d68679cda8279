"""A step on its way through the balancer: what is known of it, the loss side, the weights of the gradient side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isonomy import checks, distributed
from isonomy.gramian import Gramian, gramian
from isonomy.stages import FeatureReduce, GradientBalancer, Level, LossBalancer, Measurement


@dataclass
class Step:
    """K tasks with a loss, after the loss balancers.

    Attributes:
        losses: On the graph.
        names: Of these tasks.
        active: Their positions among all tasks, shape (K,).
        values: Of the losses, the mean over all processes, shape (K,); None when there were gradients only.
        loss_weights: ∂(Σ balanced losses)/∂ℓ, shape (K,).
        own: Gradients of the methods' own parameters.
        inputs: What each loss balancer saw, each of shape (K,).
        scale: What gradients are multiplied by on the way, as by a ``GradScaler``.
        scaled: Whether there is a ``GradScaler``, which skips what is not finite.
    """

    losses: list[Tensor]
    names: list[str]
    active: Tensor
    values: Tensor | None
    loss_weights: Tensor
    own: dict[Tensor, Tensor]
    inputs: list[Tensor]
    scale: float = 1.0
    scaled: bool = False

    def own_gradients(self, scale: float) -> dict[Tensor, Tensor]:
        """The gradients that the user's optimiser is to see, times a scale."""
        return {parameter: gradient.to(parameter) * scale for parameter, gradient in self.own.items()}

    def seeds(self, factors: Tensor | float) -> list[Tensor]:
        """What the backward pass of each loss starts with: its effective weight times a factor and the scale."""
        return [w.to(loss) for w, loss in zip(self.loss_weights * factors * self.scale, self.losses, strict=True)]


def balance_losses(
    stages: Sequence[LossBalancer], losses: list[Tensor], values: Tensor, active: Tensor, names: list[str]
) -> Step:
    """The loss side: effective weights, and the gradients of the methods' own parameters.

    Raises:
        IsonomyError: A loss lies outside the domain of a stage.
    """
    leaf = values.clone().requires_grad_()
    balanced: Tensor = leaf
    inputs: list[Tensor] = []
    own: dict[Tensor, Tensor] = {}
    for stage in stages:
        checks.require_domain(balanced.detach(), names, stage.domain, type(stage).__name__)
        inputs.append(balanced.detach())
        copies = {name: parameter.detach().requires_grad_() for name, parameter in stage.named_parameters()}
        own.update(zip(stage.parameters(), copies.values(), strict=True))
        balanced = torch.func.functional_call(stage, copies, (balanced, active)) if copies else stage(balanced, active)
    weights, *gradients = torch.autograd.grad(balanced.sum(), [leaf, *own.values()])
    return Step(losses, names, active, values, weights, dict(zip(own, gradients, strict=True)), inputs)


def observe(rows: list[list[Tensor]], level: Level, scale: float, reduce: FeatureReduce) -> Gramian:
    """The gramian of rows of J that are ``scale`` times too long; of the whole batch under data parallelism."""
    if level == "features" and reduce == "batch_sum":
        # Sums over samples are vectors of one length on every process, as gradients of parameters are.
        rows = distributed.mean_rows([[part.sum(0) if part.ndim else part for part in row] for row in rows])
    matrix = gramian(rows) / scale**2
    if level == "features" and reduce == "flatten":
        matrix = distributed.feature_gramian(matrix)
    return Gramian.of(matrix)


def weigh(balancer: GradientBalancer, gram: Gramian, step: Step) -> tuple[Tensor, Tensor]:
    """Weights at the shared parameters and at the heads, each (K,); the gradient balancer remembers the step.

    Tasks whose gradient is zero have no direction and are left out; their heads go on by their own gradient, since
    a head that starts at zero could otherwise never leave it.
    """
    weights, head_weights = torch.zeros_like(gram.norms), torch.ones_like(gram.norms)
    index = gram.norms.nonzero().squeeze(1)
    if len(index):
        values = None if step.values is None else step.values[index]
        measurement = Measurement(gram.subset(index), step.active[index], values, step.loss_weights[index])
        found = balancer(measurement)
        limit = balancer.max_norm
        factor = 1.0 if limit is None else (limit / measurement.gramian.combined_norm(found)).clamp(max=1.0)
        weights[index] = found * factor
        head_weights[index] = balancer.head_weights(measurement, found)
        step.own.update(zip(balancer.parameters(), balancer.own_gradients(measurement), strict=True))
        balancer.update(measurement, found)
    return weights, head_weights
