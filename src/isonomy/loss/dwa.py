"""DWA, dynamic weight average."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.loss.epochs import EpochMeans
from isonomy.stages import LossBalancer


class DWA(LossBalancer):
    """More weight for tasks whose loss falls slowly: w = T softmax(r / τ), r_t = L_t(e−1) / L_t(e−2).

    L_t(e) is the mean loss of epoch e; the weights of the first two epochs are 1. Call ``balancer.epoch_end()`` after
    every epoch. Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019.

    Use it where losses are alike in scale and some tasks learn slower than others; it leaves units as they are.

    Args:
        temperature: τ; large values make the weights equal.
        window: None for epochs, or a number of steps: L are then the means of the last so many steps, the current one
            among them, and of as many before them, and weights are 1 until there were so many. Several codes use 25.

    Raises:
        IsonomyError: ``temperature`` or ``window`` is not positive.
    """

    uses: tuple[str, ...] = ("epoch_end",)
    domain = "nonnegative"
    means: Tensor
    history: Tensor

    def __init__(self, temperature: float = 2.0, window: int | None = None) -> None:
        super().__init__()
        if not temperature > 0:
            raise IsonomyError(f"DWA: temperature={temperature!r} must be positive; the paper uses 2.")
        if window is not None and not (isinstance(window, int) and window > 0):
            raise IsonomyError(f"DWA: window={window!r} must be a number of steps, such as 25, or None for epochs.")
        self.temperature, self.window = temperature, window
        if window is not None:
            self.uses = ()

    def setup(self, tasks: int) -> None:  # noqa: D102
        if self.window is not None:
            # The last losses of every task, the newest at the end; NaN until there were so many.
            self.register_buffer("history", torch.full((2 * self.window, tasks), torch.nan, dtype=torch.float64))
            return
        self.epoch = EpochMeans(tasks)
        # Means of the epoch before last and of the last one; NaN until there was one.
        self.register_buffer("means", torch.full((2, tasks), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        if self.window is None:
            before, last = self.means[:, active]
        else:
            before, last = self._shifted(losses, active).view(2, self.window, -1).mean(1)
        # A mean of 0 or a missing one says nothing about speed; the cap keeps the softmax finite.
        ratios = torch.where((before > 0) & last.isfinite(), last / before, 1.0).clamp(max=1e3)
        return len(losses) * torch.softmax(ratios / self.temperature, dim=0) * losses

    def update(self, losses: Tensor, active: Tensor) -> None:  # noqa: D102
        if self.window is None:
            self.epoch.add(losses, active)
        else:
            self.history[:, active] = self._shifted(losses, active)

    def epoch_end(self, metrics: Tensor | None, learning_rate: float | None) -> None:  # noqa: D102
        if self.window is None:
            self.means = torch.stack([self.means[1], self.epoch.read()])
            self.epoch.clear()

    def _shifted(self, losses: Tensor, active: Tensor) -> Tensor:
        """These tasks' history with the losses of this step, shape (2 x window, K)."""
        return torch.cat([self.history[1:, active], losses.detach()[None]])
