"""CR-MOGM, weights with momentum."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.gradient.mgda import MGDA
from isonomy.stages import GradientBalancer, Measurement


class CRMOGM(GradientBalancer):
    """Averages another method's weights over the steps: w_k = a w_{k−1} + (1 − a) ŵ_k, from w_1 = ŵ_1.

    The weights of a small batch are correlated with its noise, which biases the direction; slowly changing ones are
    hardly so. Heads that the other method weights get w. Zhou et al., "On the Convergence of Stochastic Multi-Objective
    Gradient Manipulation and Beyond", NeurIPS 2022. The paper lets a grow as the learning rate falls, which the
    attribute ``momentum`` can be set to do, as 1 − lr / lr_0.

    Use it for methods whose weights jump from batch to batch, as MGDA's do.

    Args:
        weighting: The other method, such as ``isonomy.gradient.CAGrad()``; None for MGDA.
        momentum: a in [0, 1]; 0 leaves the weights as they are.

    Raises:
        IsonomyError: ``momentum`` is out of range, or ``weighting`` is no gradient balancer, works on the gradients
            themselves and not on weights, or belongs to another balancer.
    """

    last: Tensor

    def __init__(self, weighting: GradientBalancer | None = None, momentum: float = 0.9) -> None:
        super().__init__()
        weighting = MGDA() if weighting is None else weighting
        name = type(weighting).__name__
        if not isinstance(weighting, GradientBalancer):
            raise IsonomyError(
                f"cr_mogm: weighting must be a gradient balancer, not a {name}; pass for example "
                "isonomy.gradient.CAGrad()."
            )
        if weighting.jacobian:
            raise IsonomyError(
                f"cr_mogm: weighting={name} works on the task gradients themselves and has no weights to average; pass "
                "a method that needs the gramian alone, such as isonomy.gradient.CAGrad()."
            )
        if weighting.taken:
            raise IsonomyError(f"cr_mogm: weighting={name} belongs to another balancer: give each its own.")
        if not 0 <= momentum <= 1:
            raise IsonomyError(f"cr_mogm: momentum={momentum!r} must lie in [0, 1].")
        weighting.taken = True
        self.weighting, self.momentum = weighting, momentum
        self.heads, self.levels, self.max_norm = weighting.heads, weighting.levels, weighting.max_norm
        self.domain, self.uses, self.uses_losses = weighting.domain, weighting.uses, weighting.uses_losses
        self.symmetric = weighting.symmetric
        self.own_lr, self.own_weight_decay = weighting.own_lr, weighting.own_weight_decay

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        self.weighting.setup(tasks)
        self.register_buffer("last", torch.full((tasks,), torch.nan, dtype=torch.float64))

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        self._found = self.weighting(measurement)  # For update, which is called with the same measurement.
        # Those for heads: where Nash-MTL or FairGrad has no solution, the others are huge, and would be for many steps.
        fresh = self.weighting.head_weights(measurement, self._found)
        last = self.last[measurement.active]
        return torch.where(last.isnan(), fresh, self.momentum * last + (1 - self.momentum) * fresh)

    def own_gradients(self, measurement: Measurement) -> list[Tensor]:  # noqa: D102
        return self.weighting.own_gradients(measurement)

    def update(self, measurement: Measurement, weights: Tensor) -> None:  # noqa: D102
        self.weighting.update(measurement, self._found)
        self.last[measurement.active] = weights

    def epoch_end(self, metrics: Tensor | None, learning_rate: float | None) -> None:  # noqa: D102
        self.weighting.epoch_end(metrics, learning_rate)

    def step_end(self, losses: Tensor, active: Tensor) -> list[Tensor]:  # noqa: D102
        return self.weighting.step_end(losses, active)
