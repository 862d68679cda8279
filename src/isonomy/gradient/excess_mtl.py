"""ExcessMTL, more weight for tasks that are far from convergence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, unknown
from isonomy.history import history, require_real, views
from isonomy.solvers import share
from isonomy.stages import GradientBalancer, Measurement

_EPS = 1e-7
# Ratios E/E⁰ beyond it would decide at one step; a share below it, relative to a uniform one, could not grow back.
_MOST, _LEAST = 50.0, 1e-6


class ExcessMTL(GradientBalancer):
    """Multiplies weights by exp(β E_t / E⁰_t), with the excess risk E_t = Σ_j g_tj² / √(A_tj + ε) and A = Σ g² so far.

    E estimates how far a task is from its optimum, and so leaves out what label noise adds to its loss; E⁰ is its first
    value. Weights are then scaled to one sum again, and multiply the whole loss, heads included. He et al., "Robust
    Multi-Task Learning with Excess Risks", ICML 2024, equations 6, 7 and 9.

    Memory: T x P numbers, the roots of A.

    Use it where some tasks' labels are noisy, which makes methods that look at losses prefer them.

    Args:
        beta: β ≥ 0, the step of the weights.
        warmup_steps: Steps whose mean E is E⁰ and which leave the weights alone; the paper takes three epochs' worth. 0
            and 1 are the same: the first step.
        total: The sum of the weights: the number of ``"tasks"``, as in the official code, or ``"one"``.

    Raises:
        IsonomyError: ``beta`` or ``warmup_steps`` is negative, ``total`` unknown, or the shared parameters have changed
            their number.
    """

    heads = "weighted"
    levels = ("parameters",)
    jacobian = True
    lazy = ("roots",)
    roots: Tensor | None
    shares: Tensor
    sums: Tensor
    steps: Tensor

    def __init__(self, beta: float = 0.01, warmup_steps: int = 0, total: Literal["tasks", "one"] = "tasks") -> None:
        super().__init__()
        if not 0 <= beta < float("inf"):
            raise IsonomyError(f"excess_mtl: beta={beta!r} must be 0 or more, and finite; the official code uses 0.01.")
        if not warmup_steps >= 0:
            raise IsonomyError(f"excess_mtl: warmup_steps={warmup_steps!r} must not be negative.")
        if total not in ("tasks", "one"):
            raise unknown("total of excess_mtl", total, ("tasks", "one"))
        self.beta, self.warmup, self.total = beta, max(warmup_steps, 1), total

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        self.register_buffer("roots", None)
        self.register_buffer("shares", torch.full((tasks,), 1 / tasks, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(tasks, dtype=torch.int64))

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        assert measurement.jacobian is not None
        require_real(self, measurement.jacobian.rows)
        # No state: what update() takes up, so that J is gone through once.
        self._excess = self._risks(measurement)
        active = measurement.active
        first = (self.sums[active] / self.warmup).clamp_min(torch.finfo(torch.float64).tiny)
        ratios = (self._excess / first).clamp(max=_MOST)
        growth = torch.where(self.steps[active] < self.warmup, 0.0, self.beta * ratios)
        moved = (self.shares[active] * torch.exp(growth - growth.max())).clamp_min(_LEAST / self.tasks)
        return moved * (self._sum() * share(self.shares, active) / moved.sum())

    def update(self, measurement: Measurement, weights: Tensor) -> None:  # noqa: D102
        active = measurement.active
        for parts, row in self._pairs(measurement):
            for root, gradient in zip(parts, row, strict=True):
                torch.hypot(root, gradient.to(root.dtype), out=root)
        self.shares[active] = weights / self._sum()
        self.sums[active] += torch.where(self.steps[active] < self.warmup, self._excess, 0.0)
        self.steps[active] += 1

    def _sum(self) -> int:
        return self.tasks if self.total == "tasks" else 1

    def _risks(self, measurement: Measurement) -> Tensor:
        """E of the active tasks after this step, shape (K,), float64."""
        risks = []
        for parts, row in self._pairs(measurement):
            terms = []
            for root, gradient in zip(parts, row, strict=True):
                g = gradient.to(root.dtype)
                # By roots, since squares leave float32 where gradients do not.
                deviation = torch.hypot(torch.hypot(root, g), root.new_tensor(math.sqrt(_EPS)))
                terms.append((g * (g / deviation)).sum(dtype=torch.float64))
            risks.append(torch.stack(terms).sum())
        return torch.stack(risks)

    def _pairs(self, measurement: Measurement) -> Iterator[tuple[list[Tensor], Sequence[Tensor]]]:
        """For each active task the roots of A, as views in the shapes of its gradient, and the gradient."""
        assert measurement.jacobian is not None
        rows = measurement.jacobian.rows
        roots = history(self, "roots", rows, self.tasks)
        for row, task in zip(rows, measurement.active.tolist(), strict=True):
            yield views(roots[task], row), row
