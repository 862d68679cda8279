"""GradNorm, learned loss weights that equalise gradient norms."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from isonomy.errors import IsonomyError, unknown
from isonomy.stages import GradientBalancer, Measurement


class GradNorm(GradientBalancer):
    """Learns loss weights w, Σ w = T, that pull w_t‖g_t‖ towards mean(w‖g‖) · r_t^α.

    r_t is the task's inverse training rate, ℓ_t relative to its first value, divided by the mean of that over tasks: a
    task that lags gets longer gradients. α = 0 makes all norms equal. The weights multiply the whole loss, heads
    included. Chen et al., "GradNorm", ICML 2018, equations 1 and 2 and Algorithm 1. LibMTL's variant is
    ``simplex="softmax", baseline="epoch"`` with the balancer's ``heads="own", own_optimizer=False``.

    Use it when tasks should learn at one pace and there is time to search α, on which its results depend.

    Args:
        alpha: α ≥ 0, the restoring force.
        simplex: How Σ w = T is kept: w is rescaled after every step of its Adam (``"rescale"``, the paper) or is T
            times a softmax (``"softmax"``).
        baseline: What losses are compared with: the first ``"batch"``'s, or the mean of the first ``"epoch"``, during
            which all weights are 1 and which ``balancer.epoch_end()`` ends.
        own_lr: Learning rate of w.

    Raises:
        IsonomyError: ``alpha`` is negative or not finite, ``simplex`` or ``baseline`` unknown.
    """

    heads = "weighted"
    first: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        alpha: float = 1.5,
        simplex: Literal["rescale", "softmax"] = "rescale",
        baseline: Literal["batch", "epoch"] = "batch",
        own_lr: float = 0.025,
    ) -> None:
        super().__init__()
        if not 0 <= alpha < float("inf"):
            raise IsonomyError(f"gradnorm: alpha={alpha!r} must be 0 or more, and finite; the paper uses 1.5.")
        if simplex not in ("rescale", "softmax"):
            raise unknown("simplex of gradnorm", simplex, ("rescale", "softmax"))
        if baseline not in ("batch", "epoch"):
            raise unknown("baseline of gradnorm", baseline, ("batch", "epoch"))
        self.alpha, self.simplex, self.baseline, self.own_lr = alpha, simplex, baseline, own_lr
        self.uses_losses = alpha > 0
        if self.uses_losses:
            self.domain = "nonnegative"
        if baseline == "epoch":
            self.uses = ("epoch_end",)

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        self.scores = nn.Parameter(torch.ones(tasks))
        self.register_buffer("first", torch.full((tasks,), torch.nan, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(tasks, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(tasks, dtype=torch.int64))

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        if self.simplex == "rescale":
            with torch.no_grad():
                self.scores.clamp_min_(1e-6).mul_(self.tasks / self.scores.sum())
        return self._weights().detach()[measurement.active].double()

    def own_gradients(self, measurement: Measurement) -> list[Tensor]:  # noqa: D102
        norms = measurement.gramian.norms
        if self.baseline == "epoch" and bool(self.first[measurement.active].isnan().any()):
            return []
        with torch.enable_grad():
            scores = self.scores.detach().requires_grad_()
            scaled = self._weights(scores)[measurement.active] * norms
            target = scaled.mean().detach() * self._rates(measurement) ** self.alpha
            return list(torch.autograd.grad((scaled - target).abs().sum(), [scores]))

    def update(self, measurement: Measurement, weights: Tensor) -> None:  # noqa: D102
        if measurement.losses is None:
            return
        active, losses = measurement.active, measurement.losses
        if self.baseline == "batch":
            # A batch without labels of a task has a loss of 0, which nothing can be compared with.
            fresh = self.first[active].isnan() & (losses > 0)
            self.first[active] = torch.where(fresh, losses, self.first[active])
        else:
            self.sums[active] += losses
            self.counts[active] += 1

    def epoch_end(self, metrics: Tensor | None, learning_rate: float | None) -> None:  # noqa: D102
        if self.baseline == "epoch":
            means = (self.sums / self.counts).masked_fill(self.sums == 0, torch.nan)
            self.first = torch.where(self.first.isnan(), means, self.first)

    def _weights(self, scores: Tensor | None = None) -> Tensor:
        scores = self.scores if scores is None else scores
        return scores if self.simplex == "rescale" else self.tasks * torch.softmax(scores, 0)

    def _rates(self, measurement: Measurement) -> Tensor:
        if measurement.losses is None or self.alpha == 0:
            return torch.ones_like(measurement.gramian.norms)
        first = self.first[measurement.active]
        ratios = torch.where(first.isnan(), 1.0, measurement.losses / first)
        mean = ratios.mean()
        return torch.where(mean > 0, ratios / mean, 1.0)
