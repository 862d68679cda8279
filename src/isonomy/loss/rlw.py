"""RLW, random loss weighting."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import unknown
from isonomy.stages import LossBalancer, step_generator


class RLW(LossBalancer):
    """Weights drawn anew every step: S = Σ w_t ℓ_t with w = softmax(u), u ~ N(0, I), or w ~ Dirichlet(1).

    Lin, Ye, Zhang and Tsang, "Reasonable Effectiveness of Random Weighting", TMLR 2022. Use it as a litmus test of
    other methods rather than for its own sake: what does not beat random weights is not worth its cost.

    Args:
        family: The distribution, ``"normal"`` (through a softmax) or ``"dirichlet"``.
        total: What the weights sum to, ``"one"`` as in the published results or ``"tasks"``, which makes the step as
            long as equal weighting's under SGD.
        seed: Of the stage's own generator.

    Raises:
        IsonomyError: ``family`` or ``total`` is unknown.
    """

    symmetric = False
    steps: Tensor

    def __init__(
        self, family: Literal["normal", "dirichlet"] = "normal", total: Literal["one", "tasks"] = "one", seed: int = 0
    ) -> None:
        super().__init__()
        if family not in ("normal", "dirichlet"):
            raise unknown("family of rlw", family, ("normal", "dirichlet"))
        if total not in ("one", "tasks"):
            raise unknown("total of rlw", total, ("one", "tasks"))
        self.family, self.total, self.seed = family, total, seed
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def setup(self, tasks: int) -> None:  # noqa: D102
        self.tasks = tasks

    def draw(self) -> Tensor:
        """The logits of this step for all tasks: weights are their softmax, shape (T,)."""
        generator = step_generator(self.seed, self.steps)
        if self.family == "normal":
            return torch.randn(self.tasks, generator=generator, dtype=torch.float64, device="cpu")
        # Normalised exponentials are Dirichlet(1), and a softmax of their logarithms normalises them.
        return torch.empty(self.tasks, dtype=torch.float64, device="cpu").exponential_(generator=generator).log()

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        weights = torch.softmax(self.draw().to(losses.device)[active], dim=0)
        return weights * losses * (len(losses) if self.total == "tasks" else 1)

    def update(self, losses: Tensor, active: Tensor) -> None:  # noqa: D102
        self.steps += 1
