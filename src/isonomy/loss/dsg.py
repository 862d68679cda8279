"""DSG, dynamic stop-and-go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, unknown
from isonomy.loss.epochs import require_rate
from isonomy.stages import LossBalancer

Mode = Literal["max", "min"]


class DSG(LossBalancer):
    """Rests tasks that have converged: S = Σ m_t ℓ_t, m_t = 0 for a stopped task but at every Δ-th step, 1 otherwise.

    Call ``balancer.epoch_end(metrics, learning_rate=...)`` with validation metrics after every epoch. A task stops once
    its metric has not risen by ``threshold`` for more than ``patience`` epochs, and goes on when it has fallen by
    ``restart`` below its best; after either the next epoch does not count. Thresholds are parts of the best metric, and
    absolute where that is not positive. Once the learning rate has fallen to half of what it was when they began, all
    begin anew. In steps where every task rests the gradients are 0. Lu, Goswami, Rohrbach, Parikh and Lee, "12-in-1:
    Multi-Task Vision and Language Representation Learning", CVPR 2020, section 3.2.

    Use it for long runs of many tasks of which some converge, and then overfit, much earlier than others.

    Args:
        mode: Whether ``"max"`` or ``"min"`` of a metric is best; one for all tasks, or one a task.
        interval: Δ, a stopped task trains at every so many-th step.
        patience: For how many epochs a metric may stand still.
        threshold: By which part of its best a metric has to get better to have risen.
        restart: By which part of its best a metric has to get worse for the task to go on.

    Raises:
        IsonomyError: An argument is out of range or unknown, there is not one mode for every task, or a learning rate
            is no number of 0 or more.
    """

    uses = ("validation",)
    signs: Tensor
    best: Tensor
    bad: Tensor
    rest: Tensor
    stopped: Tensor
    steps: Tensor
    rate: Tensor

    def __init__(
        self,
        mode: Mode | Sequence[Mode] = "max",
        interval: int = 4,
        patience: int = 1,
        threshold: float = 0.001,
        restart: float = 0.005,
    ) -> None:
        super().__init__()
        for name in [mode] if isinstance(mode, str) else mode:
            if name not in ("max", "min"):
                raise unknown("mode of dsg", name, ("max", "min"))
        least = {"interval": 1, "patience": 0, "threshold": 0, "restart": 0}
        for (option, least_value), value in zip(least.items(), (interval, patience, threshold, restart), strict=True):
            if not least_value <= value < float("inf"):
                raise IsonomyError(f"dsg: {option}={value!r} must be {least_value} or more.")
        self.mode, self.interval, self.patience = mode, interval, patience
        self.threshold, self.restart = threshold, restart
        self.symmetric = isinstance(mode, str)

    def setup(self, tasks: int) -> None:  # noqa: D102
        modes = [self.mode] * tasks if isinstance(self.mode, str) else self.mode
        if len(modes) != tasks:
            raise IsonomyError(f"dsg: mode has {len(modes)} entries for {tasks} tasks; give one, or one a task.")
        signs = torch.tensor([1.0 if name == "max" else -1.0 for name in modes], dtype=torch.float64)
        self.register_buffer("signs", signs, persistent=False)
        self.register_buffer("best", torch.full((tasks,), torch.nan, dtype=torch.float64))
        for name in ("bad", "rest"):
            self.register_buffer(name, torch.zeros(tasks, dtype=torch.int64))
        self.register_buffer("stopped", torch.zeros(tasks, dtype=torch.bool))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("rate", torch.full((), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        trains = ~self.stopped[active] | (self.steps % self.interval == 0)
        return trains * losses

    def update(self, losses: Tensor, active: Tensor) -> None:  # noqa: D102
        self.steps += 1

    def epoch_end(self, metrics: Tensor | None, learning_rate: float | None) -> None:  # noqa: D102
        require_rate("dsg", learning_rate)
        if metrics is not None:
            self._observe(metrics)
        if learning_rate is not None:
            # The authors' schedule falls in steps; one that falls a little every epoch must not reset every epoch.
            halved = bool(learning_rate <= self.rate / 2)
            if halved:
                self.best = torch.full_like(self.best, torch.nan)
                self.bad, self.rest, self.stopped = (torch.zeros_like(t) for t in (self.bad, self.rest, self.stopped))
            if halved or not learning_rate <= self.rate:
                self.rate.fill_(learning_rate)

    def _observe(self, metrics: Tensor) -> None:
        seen = ~metrics.isnan()
        better = ~self.best.isfinite() | (self.signs * (metrics - self.best) > self._margin(self.threshold))
        best = torch.where(better, metrics, self.best)
        bad = torch.where(better | (self.rest > 0), 0, self.bad + 1)
        rest = (self.rest - 1).clamp(min=0)
        self.best = torch.where(seen, best, self.best)
        stops = bad > self.patience
        goes = ~stops & self.stopped & (self.signs * (metrics - self.best) < -self._margin(self.restart))
        self.stopped = torch.where(seen, (self.stopped | stops) & ~goes, self.stopped)
        self.rest = torch.where(seen, torch.where(stops | goes, 1, rest), self.rest)
        self.bad = torch.where(seen, torch.where(stops | goes, 0, bad), self.bad)

    def _margin(self, part: float) -> Tensor:
        return part * torch.where(self.best > 0, self.best, 1.0)
