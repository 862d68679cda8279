"""PCGrad, gradient surgery by projection."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, unknown
from isonomy.stages import GradientBalancer, Measurement, step_generator

ORDERS = ("random", "ascending", "mean")
_MOST_TASKS_FOR_MEAN = 6


def project(C: Tensor, norms: Tensor, orders: Tensor) -> Tensor:
    """PCGrad's weights for given orders of projection, from cosines alone.

    A gradient that has been projected stays a combination Σ_j c_j u_j of the unit gradients, and its product with u_j
    is (C c)_j, so nothing of size P is touched.

    Args:
        C: Cosines, shape (T, T).
        norms: Shape (T,).
        orders: Row i lists the tasks that task i is projected against, in turn; shape (T, T - 1).

    Returns:
        w, shape (T,): Jᵀw is the sum of the projected gradients.
    """
    coefficients = torch.eye(len(C), dtype=C.dtype, device=C.device)
    rows = torch.arange(len(C), device=C.device)
    for others in orders.T:
        products = (C[others] * coefficients).sum(1)
        coefficients[rows, others] -= products.clamp_max(0)
    return (norms @ coefficients) / norms


def others_of(size: int, device: torch.device) -> Tensor:
    """Row i lists the tasks other than i, ascending; shape (K, K - 1)."""
    return torch.tensor([[j for j in range(size) if j != i] for i in range(size)], dtype=torch.int64, device=device)


def shuffled(others: Tensor, tasks: int, generator: torch.Generator) -> Tensor:
    """Every row of ``others`` in an order of its own, from draws for all T tasks."""
    draws = torch.rand(tasks, tasks, generator=generator, device="cpu")[: len(others), : others.shape[1]]
    return others.gather(1, draws.argsort(1).to(others.device))


class PCGrad(GradientBalancer):
    """Projects conflicts out, then sums: where g_i·g_j < 0, g_i ← g_i − (g_i·g_j / ‖g_j‖²) g_j.

    Each task meets the others' gradients, as they were, one after the other in a random order of its own. Yu et al.,
    "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, Algorithm 1.

    Use it where gradients conflict and are of like length: a gradient that is much longer than the others keeps
    dominating the sum.

    Args:
        order: ``"random"`` as in the paper, ``"ascending"`` by position, or ``"mean"``, the expectation over all orders
            (up to 6 tasks), which draws nothing and treats tasks alike.
        seed: Of the stage's own generator.

    Raises:
        IsonomyError: ``order`` is unknown, or ``"mean"`` for more than 6 tasks.
    """

    steps: Tensor

    def __init__(self, order: Literal["random", "ascending", "mean"] = "random", seed: int = 0) -> None:
        super().__init__()
        if order not in ORDERS:
            raise unknown("order of pcgrad", order, ORDERS)
        self.order, self.seed = order, seed
        self.symmetric = order == "mean"
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        if self.order == "mean" and tasks > _MOST_TASKS_FOR_MEAN:
            raise IsonomyError(
                f"pcgrad: order='mean' goes through (T-1)! orders and takes {_MOST_TASKS_FOR_MEAN} tasks at most, "
                f"not {tasks}; use order='random'."
            )

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        norms, C = measurement.gramian.norms, measurement.gramian.cosines
        others = others_of(len(norms), C.device)
        match self.order:
            case "random":
                orders = [shuffled(others, self.tasks, step_generator(self.seed, self.steps))]
            case "ascending":
                orders = [others]
            case _:
                orders = [others[:, list(order)] for order in itertools.permutations(range(len(norms) - 1))]
        return torch.stack([project(C, norms, order) for order in orders]).mean(0)

    def update(self, measurement: Measurement, weights: Tensor) -> None:  # noqa: D102
        self.steps += 1
