"""``toy``: two losses of two numbers, the landscape on which CAGrad and Nash-MTL show what balancing does.

There is no network: the shared parameters are the point itself. A seed is a start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isonomy.bench.architectures import Design
from isonomy.bench.architectures.point import Point
from isonomy.bench.data import Embedded, Losses, Metric, Task
from isonomy.bench.recipe import Recipe

# The five starts of Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022.
STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
STEPS = 1_000
LOWEST = 5e-6


def landscape(point: Tensor, scale: float = 0.1) -> Tensor:
    """Both losses at points of the plane: a valley at b > 0 in which they agree, and two bowls at b < 0 that disagree.

    Args:
        point: Points (a, b), shape (..., 2).
        scale: Of the first loss: 1 in CAGrad's paper, 0.1 in Nash-MTL's.

    Returns:
        The losses, shape (..., 2).
    """
    a, b = point[..., 0], point[..., 1]
    valley = torch.tanh(-b)
    cliff_1 = (0.5 * (-a - 7) - valley).abs().clamp_min(LOWEST).log() + 6
    cliff_2 = (0.5 * (-a + 3) + valley + 2).abs().clamp_min(LOWEST).log() + 6
    depth = 0.1 * (b + 8).square()
    bowl_1 = ((a - 7).square() + depth) / 10 - 20
    bowl_2 = ((a + 7).square() + depth) / 10 - 20
    upper, lower = torch.tanh(0.5 * b).clamp_min(0), torch.tanh(-0.5 * b).clamp_min(0)
    return torch.stack([scale * (cliff_1 * upper + bowl_1 * lower), cliff_2 * upper + bowl_2 * lower], dim=-1)


def pareto(count: int = 141) -> Tensor:
    """Points of the Pareto set, where no loss can fall without the other rising, shape (count, 2).

    At scale 1 the minimiser of w L1 + (1 - w) L2 has a = 14 w - 7; its b follows by bisection of the sum's slope. The
    scale of a loss moves a weighted sum's minimiser along the set and leaves the set as it is.

    Args:
        count: Number of points, equally spaced in a.
    """
    a = torch.linspace(-7, 7, count, dtype=torch.float64)
    weight = (a + 7) / 14
    low, high = torch.full_like(a, -8.6), torch.full_like(a, -8.2)
    for _ in range(50):
        b = ((low + high) / 2).requires_grad_()
        losses = landscape(torch.stack([a, b], dim=-1), scale=1.0)
        (slope,) = torch.autograd.grad((weight * losses[:, 0] + (1 - weight) * losses[:, 1]).sum(), b)
        low, high = torch.where(slope < 0, b, low).detach(), torch.where(slope < 0, high, b).detach()
    return torch.stack([a, (low + high) / 2], dim=-1)


@dataclass
class Toy(Embedded):
    """Descend two conflicting losses, one a tenth of the other, from one of five starts. See ``Problem``."""

    name: str = "toy"
    summary: str = "two losses of two numbers with a known Pareto front; seed k is the k-th of five starts"
    version: int = 1
    tasks: tuple[Task, ...] = (
        Task("L1", (Metric("descent", up=True),)),
        Task("L2", (Metric("descent", up=True),)),
    )
    architectures: tuple[str, ...] = ("point",)
    backbones: tuple[str, ...] = ()
    size: None = None
    levels: tuple[str, ...] = ("parameters",)
    recipe: Recipe = Recipe(epochs=35, learning_rate=1e-3)
    trace_every: int = 100

    def network(self, design: Design, tasks: Sequence[str], seed: int) -> nn.Module:  # noqa: D102
        return Point(STARTS[seed % len(STARTS)])

    def batches(self, seed: int, epoch: int, device: Any, split: str = "train") -> Iterator[int]:  # noqa: D102
        return iter(range(STEPS))

    def losses(self, model: Callable[..., Any], batch: int, tasks: Sequence[str]) -> Losses:  # noqa: D102
        values = dict(zip(("L1", "L2"), landscape(model()), strict=True))
        return Losses({task: values[task] for task in tasks}, None)

    def evaluate(  # noqa: D102
        self, model: nn.Module, tasks: Sequence[str], split: str, thorough: bool = True
    ) -> dict[str, dict[str, float]]:
        with torch.inference_mode():
            start, end = landscape(model.start), landscape(model())  # type: ignore[arg-type]
        descents = dict(zip(("L1", "L2"), (start - end).tolist(), strict=True))
        return {task: {"descent": descents[task]} for task in tasks}

    def trace(self, model: nn.Module) -> list[float]:  # noqa: D102
        with torch.inference_mode():
            point = model()
            return [*point.tolist(), *landscape(point).tolist()]
