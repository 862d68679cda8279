"""MetaBalance, gradient norms near the target task's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, unknown
from isonomy.gradient.groups import Groups, group, group_gramians, weigh_groups
from isonomy.stages import GradientBalancer, Measurement

REFERENCES = ("mean", "max", "min")
STRATEGIES = {"reduce": (0.0, 1.0), "enlarge": (1.0, torch.inf), "both": (0.0, torch.inf)}


class MetaBalance(GradientBalancer):
    """Brings the norms of auxiliary gradients near the target's, tensor by tensor: w_t = r m_0 / m_t + 1 − r.

    m_t is a moving average of ‖g_t‖, m_t ← β m_t + (1 − β) ‖g_t‖ from 0, whose bias cancels in the ratio; it is
    corrected for tasks that had a part in fewer steps than others. At a tensor that gets no gradient from the target,
    weights are 1. He et al., "MetaBalance: Improving Multi-Task Recommendations
    via Adapting Gradient Magnitudes of Auxiliary Tasks", WWW 2022. Equal tasks, which the paper does not consider, can
    take a statistic as their reference instead.

    Use it where one task matters and the others are there to help it.

    Args:
        reference: Position of the target task, or the ``"mean"``, ``"max"`` or ``"min"`` of the averages m_t that are
            not zero, which takes all tasks as equal.
        relax: r in [0, 1]: 0 leaves the gradients as they are, 1 gives all the reference's norm.
        beta: β in [0, 1).
        strategy: Whether gradients are only made shorter, ``"reduce"``, only made longer, ``"enlarge"``, or ``"both"``.
        groups: Norms are those at each shared ``"tensor"``, as in the paper, or at the whole ``"model"``, which needs
            no more than the gramian and works at features as well.

    Raises:
        IsonomyError: An option is out of range or unknown, or the number of shared tensors has changed.
    """

    lazy = ("averages",)
    averages: Tensor
    steps: Tensor

    def __init__(
        self,
        reference: int | Literal["mean", "max", "min"] = 0,
        relax: float = 0.7,
        beta: float = 0.9,
        strategy: Literal["reduce", "enlarge", "both"] = "both",
        groups: Groups = "tensor",
    ) -> None:
        super().__init__()
        if not isinstance(reference, int) and reference not in REFERENCES:
            raise unknown("reference of metabalance", reference, REFERENCES)
        if not 0 <= relax <= 1:
            raise IsonomyError(f"metabalance: relax={relax!r} must lie in [0, 1]; the paper finds 0.7 good.")
        if not 0 <= beta < 1:
            raise IsonomyError(f"metabalance: beta={beta!r} must lie in [0, 1).")
        if strategy not in STRATEGIES:
            raise unknown("strategy of metabalance", strategy, STRATEGIES)
        group(self, "metabalance", groups)
        self.reference, self.relax, self.beta, self.strategy = reference, relax, beta, strategy
        self.symmetric = not isinstance(reference, int)

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        if isinstance(self.reference, int) and not 0 <= self.reference < tasks:
            raise IsonomyError(
                f"metabalance: reference={self.reference} is no position among {tasks} tasks; "
                f"give one from 0 to {tasks - 1}."
            )
        self.register_buffer("averages", torch.zeros(0, tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(tasks, dtype=torch.int64))

    def forward(self, measurement: Measurement) -> Tensor | list[Tensor]:  # noqa: D102
        norms = group_gramians(measurement, "metabalance", len(self.averages)).norms
        every = self.averages.clone() if len(self.averages) else norms.new_zeros(len(norms), self.tasks)
        active = measurement.active
        every[:, active] = self.beta * every[:, active] + (1 - self.beta) * norms
        self._found = every  # For update, which is called with the same measurement.
        steps = self.steps.index_add(0, active, torch.ones_like(active))
        unbiased = every / (1 - self.beta ** steps.clamp_min(1).double())
        averages = unbiased[:, active]
        reference = self._reference(unbiased, averages)
        weights = (self.relax * reference / averages + (1 - self.relax)).clamp(*STRATEGIES[self.strategy])
        return weigh_groups(measurement, torch.where((norms == 0) | (reference == 0), 1.0, weights))

    def update(self, measurement: Measurement, weights: Tensor | list[Tensor]) -> None:  # noqa: D102
        self.averages = self._found
        self.steps[measurement.active] += 1

    def _reference(self, every: Tensor, averages: Tensor) -> Tensor:
        if isinstance(self.reference, int):
            return every[:, self.reference, None]
        match self.reference:
            case "max":
                return averages.amax(1, keepdim=True)
            case "min":
                return torch.where(averages > 0, averages, torch.inf).amin(1, keepdim=True)
            case _:
                return averages.sum(1, keepdim=True) / (averages > 0).sum(1, keepdim=True)
