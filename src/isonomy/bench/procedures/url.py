"""URL: draws the shared feature z towards the features F_t of single-task networks: S = Σ_t ℓ_t + Σ_t D_t.

D_t is the mean over samples and positions of ‖a/‖a‖ − F_t/‖F_t‖‖² with a = A_t(z) and norms over the channels. It lies
in [0, 4] for every task, whatever the scale of its loss, which is what balances them. The adaptors A_t are linear maps
of the channels (1 × 1 convolutions without bias), trained along with the network by an Adam of their own whose rate
falls as a cosine to the end of training, and not part of the model. The teachers F_t are the sweep's own single-task
networks of the same seed, in evaluation mode.

Li and Bilen, "Knowledge Distillation for Multi-task Learning", ECCV Workshops 2020; Li, Liu and Bilen, "Universal
Representations", IJCV 2023.

Use it where single-task networks are trained anyway, or are better than the multi-task one: it costs T of them first,
and a forward pass through each at every step.

Args:
    own_lr: Learning rate of the adaptors at the start.
    weight_decay: Of the adaptors.
"""

from __future__ import annotations

from math import cos, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench import plan, records
from isonomy.bench.procedures.base import Procedure
from isonomy.bench.seeds import drawn

if TYPE_CHECKING:
    from isonomy.bench.trainer import Trainer

# A feature that is shorter has no direction.
SHORTEST = 1e-12


def adaptor(channels: int, dimensions: int) -> nn.Module:
    """A_t, from the student's channels to the teacher's, which are as many.

    Args:
        channels: The size of the feature's dimension 1.
        dimensions: How many dimensions the feature has: 2 for vectors, 4 for maps.
    """
    layer = (
        nn.Linear(channels, channels, bias=False) if dimensions == 2 else nn.Conv2d(channels, channels, 1, bias=False)
    )
    nn.init.xavier_normal_(layer.weight)
    return layer


def distance(adapted: Tensor, teacher: Tensor) -> Tensor:
    """D_t, in [0, 4], a 0-d tensor; it does not depend on the length of either feature.

    Args:
        adapted: A_t(z), shape (B, C, ...).
        teacher: F_t, of the same shape; gets no gradient.
    """
    student, target = (functional.normalize(x, dim=1, eps=SHORTEST) for x in (adapted, teacher.detach()))
    return (student - target).square().sum(1).mean()


class URL(Procedure):
    """Adds D_t to the losses; see the module."""

    def __init__(self, trainer: Trainer, own_lr: float, weight_decay: float) -> None:
        super().__init__(trainer)
        cell, problem, device = trainer.cell, trainer.problem, trainer.fabric.device
        shape = trainer.feature_shape()
        self.adaptors = nn.ModuleDict()
        self.teachers = nn.ModuleDict()
        for task in cell.tasks:
            with drawn(cell.seed, "adaptor", task):
                self.adaptors[task] = adaptor(shape[1], len(shape))
            self.teachers[task] = problem.network(cell.design, [task], cell.seed)
        self.adaptors.to(device)
        self.teachers.to(device).eval().requires_grad_(False)
        trainer.add(
            torch.optim.Adam(self.adaptors.parameters(), own_lr, weight_decay=weight_decay),
            lambda epoch: own_lr * (1 + cos(pi * epoch / cell.recipe.epochs)) / 2,
        )

    def prepare(self, out: Path) -> None:  # noqa: D102
        for task, teacher in self.teachers.items():
            folder = plan.finished_single(out, task, self.trainer.cell)
            teacher.load_state_dict(records.load_model(folder, self.trainer.fabric.device))

    def extra(self, batch: Any, feature: Tensor | list[Tensor] | None) -> Tensor:  # noqa: D102
        problem = self.trainer.problem
        with torch.no_grad():
            targets = {task: problem.losses(teacher, batch, [task]).feature for task, teacher in self.teachers.items()}
        return torch.stack([distance(self.adaptors[task](feature), f) for task, f in targets.items()]).sum()  # type: ignore[arg-type]

    def state(self) -> dict[str, Any]:  # noqa: D102
        return self.adaptors.state_dict()

    def load(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.adaptors.load_state_dict(state)
