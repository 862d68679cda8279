"""STCH, smooth Tchebycheff scalarisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, unknown
from isonomy.loss.epochs import EpochReference, require_epochs
from isonomy.stages import LossBalancer


class STCH(LossBalancer):
    """A smooth maximum of the losses: S = T μ log Σ exp(y_t / μ) with y_t = log(ℓ_t / nadir_t).

    The nadir holds the mean losses of an early epoch. Until it is over the weights are those of the log-loss, 1 / ℓ_t;
    after it they are T p_t / ℓ_t with p = softmax(y / μ). At μ = 1 these stand in the constant proportion
    1 / nadir_t, and only a smaller μ turns to the worst task. This is the form of the authors' multi-task code; call
    ``balancer.epoch_end()`` after every epoch. The paper's own form is S = μ log Σ exp(λ_t (ℓ_t − z_t) / μ) with
    weights λ_t p_t. Lin, Zhang, Yang, Liu, Wang and Zhang, "Smooth Tchebycheff Scalarization for Multi-Objective
    Optimization", ICML 2024.

    Use it with a μ below 1 where the task that lags most should decide, and losses are positive.

    Args:
        mu: μ > 0, the smoothness; near 0 only the largest term counts.
        form: ``"official"``, the authors' code, or ``"paper"``.
        nadir_epoch: The epoch, counted from 0, whose mean losses are the nadir of the official form.
        preference: λ of the paper's form, one positive number a task, divided by their sum; None for equal ones.
        ideal: z of the paper's form, the ideal loss of every task; None for 0.

    Raises:
        IsonomyError: An argument is out of range or belongs to the other form, or there is not one for every task.
    """

    symmetric = True
    preference: Tensor
    ideal: Tensor

    def __init__(
        self,
        mu: float = 1.0,
        form: Literal["official", "paper"] = "official",
        nadir_epoch: int = 4,
        preference: Sequence[float] | None = None,
        ideal: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < mu < float("inf"):
            raise IsonomyError(f"stch: mu={mu!r} must be positive; the authors' code uses 1.")
        if form not in ("official", "paper"):
            raise unknown("form of stch", form, ("official", "paper"))
        require_epochs("stch", nadir_epoch=nadir_epoch)
        given = {"preference": preference, "ideal": ideal}
        for option, values in given.items():
            if values is None:
                continue
            if form == "official":
                raise IsonomyError(f"stch: {option} belongs to the paper's form: pass form='paper' too.")
            lowest = 0.0 if option == "preference" else float("-inf")
            if not all(lowest < value < float("inf") for value in values):
                what = "positive, finite" if option == "preference" else "finite"
                raise IsonomyError(f"stch: {option}={list(values)!r} must hold {what} numbers, one a task.")
        self.mu, self.form, self.nadir_epoch, self.given = mu, form, nadir_epoch, given
        if form == "official":
            self.domain, self.uses = "positive", ("epoch_end",)
        self.symmetric = preference is None and ideal is None

    def setup(self, tasks: int) -> None:  # noqa: D102
        if self.form == "official":
            self.reference = EpochReference(tasks, self.nadir_epoch)
            return
        for (option, values), default in zip(self.given.items(), (1.0, 0.0), strict=True):
            if values is not None and len(values) != tasks:
                raise IsonomyError(f"stch: {option} has {len(values)} entries for {tasks} tasks; give one a task.")
            numbers = [default] * tasks if values is None else list(values)
            self.register_buffer(option, torch.tensor(numbers, dtype=torch.float64), persistent=False)

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        if self.form == "official":
            # A task without a nadir is taken to be at it, which gives the log-loss's weights before the nadir.
            scale, y = float(len(losses)), torch.log(losses / self.reference.of(losses, active))
        else:
            share = self.preference[active]
            scale, y = 1.0, share / share.sum() * (losses - self.ideal[active])
        total = scale * self.mu * torch.logsumexp(y / self.mu, dim=0)
        return (total / len(losses)).expand(len(losses))

    def update(self, losses: Tensor, active: Tensor) -> None:  # noqa: D102
        if self.form == "official":
            self.reference.means.add(losses, active)

    def epoch_end(self, metrics: Tensor | None, learning_rate: float | None) -> None:  # noqa: D102
        if self.form == "official":
            self.reference.epoch_end("stch")
