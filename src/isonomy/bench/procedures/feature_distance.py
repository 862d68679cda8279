"""How far the shared feature z is from the features F_t of single-task networks, measured while a method trains.

For each task the distance of URL between A_t(z) and F_t (``isonomy.bench.procedures.url``): the mean over samples and
positions of the squared difference of the two directions. The adaptors A_t are trained along, by that distance alone
and an Adam of their own, since two networks may hold the same in other channels. Nothing reaches the network: it is
trained to the bit as without.

Guo et al., "Revisit the Imbalance Optimization in Multi-Task Learning: An Experimental Analysis", 2025, Figure 6.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isonomy.bench import plan, records
from isonomy.bench.procedures.base import Procedure
from isonomy.bench.procedures.url import adaptor, distance
from isonomy.bench.seeds import drawn

if TYPE_CHECKING:
    from isonomy.bench.trainer import Trainer

# Of the adaptors.
LEARNING_RATE = 1e-2


class FeatureDistance(Procedure):
    """Looks at every step's feature; see the module."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        cell, device = trainer.cell, trainer.fabric.device
        shape = trainer.feature_shape()
        self.adaptors, self.teachers = nn.ModuleDict(), nn.ModuleDict()
        for task in cell.tasks:
            with drawn(cell.seed, "adaptor", task):
                self.adaptors[task] = adaptor(shape[1], len(shape))
            self.teachers[task] = trainer.problem.network(cell.design, [task], cell.seed)
        self.adaptors.to(device)
        self.teachers.to(device).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.adaptors.parameters(), LEARNING_RATE)
        self.begin(0)

    def prepare(self, out: Path) -> None:  # noqa: D102
        for task, teacher in self.teachers.items():
            folder = plan.finished_single(out, task, self.trainer.cell)
            teacher.load_state_dict(records.load_model(folder, self.trainer.fabric.device))

    def begin(self, epoch: int) -> None:  # noqa: D102
        self.total = torch.zeros(len(self.teachers), dtype=torch.float64, device=self.trainer.fabric.device)
        self.steps = 0

    def extra(self, batch: Any, feature: Tensor | list[Tensor] | None) -> None:
        """Adds no loss: it takes the distances, and trains the adaptors."""
        assert isinstance(feature, Tensor)  # as the plan lets it see networks with one feature only
        seen, problem = feature.detach().float(), self.trainer.problem
        distances = []
        for task, teacher in self.teachers.items():
            with torch.no_grad():
                target = problem.losses(teacher, batch, [task]).feature
            assert isinstance(target, Tensor)
            distances.append(distance(self.adaptors[task](seen), target.float()))
        stacked = torch.stack(distances)
        # The adaptors are in no forward pass of the network's, so this goes no further than to them.
        gradients = torch.autograd.grad(stacked.sum(), list(self.adaptors.parameters()))
        for parameter, gradient in zip(self.adaptors.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.total += stacked.detach().double()
        self.steps += 1

    def record(self) -> dict[str, Any]:
        """The mean distance of each task over the epoch's steps."""
        means = (self.total / self.steps).tolist()
        return {"feature_distance": dict(zip(self.teachers, means, strict=True))}

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {"adaptors": self.adaptors.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.adaptors.load_state_dict(state["adaptors"])
        self.optimizer.load_state_dict(state["optimizer"])
