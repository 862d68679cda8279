"""StepReport: what one training step looked like, task by task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isonomy.gramian import Gramian


@dataclass(frozen=True)
class StepReport:
    """What the balancer saw and did in one step, as detached tensors in task order.

    A task without a loss in this batch has NaN everywhere. Methods that take no task gradients leave ``weights``,
    ``norms``, ``cosines``, ``alignment`` and ``conflicts`` None. Nothing is read to the host until somebody looks.

    Attributes:
        tasks: Names of the tasks.
        losses: Losses, shape (T,); the mean over all processes.
        loss_weights: Effective weights of the loss balancers, ∂(Σ balanced losses)/∂ℓ, shape (T,).
        weights: Weights of the gradient balancer on top of these, shape (T,): the shared parameters get
            Σ weights · loss_weights · ∇ℓ.
        gramian: Norms and cosines of the balanced losses' gradients.
    """

    tasks: tuple[str, ...]
    losses: Tensor
    loss_weights: Tensor
    weights: Tensor | None = None
    gramian: Gramian | None = None

    @classmethod
    def of(
        cls,
        tasks: tuple[str, ...],
        active: Tensor,
        losses: Tensor | None,
        loss_weights: Tensor,
        weights: Tensor | None,
        gramian: Gramian | None,
    ) -> StepReport:
        """The report of a step in which the K tasks at the positions ``active`` took part; all else as above, (K,)."""

        def spread(tensor: Tensor) -> Tensor:
            if len(active) == len(tasks):
                return tensor.detach()
            full = tensor.new_full((len(tasks),) * tensor.ndim, torch.nan)
            full[torch.meshgrid(*[active] * tensor.ndim, indexing="ij")] = tensor.detach()
            return full

        return cls(
            tasks,
            spread(torch.full_like(loss_weights, torch.nan) if losses is None else losses),
            spread(loss_weights),
            None if weights is None else spread(weights),
            None if gramian is None else Gramian(spread(gramian.norms), spread(gramian.cosines)),
        )

    @property
    def norms(self) -> Tensor | None:
        """Norms of the balanced losses' gradients, shape (T,)."""
        return None if self.gramian is None else self.gramian.norms

    @property
    def cosines(self) -> Tensor | None:
        """Pairwise cosines of the gradients, shape (T, T)."""
        return None if self.gramian is None else self.gramian.cosines

    @property
    def alignment(self) -> Tensor | None:
        """Cosine of each task's gradient with the aggregate, shape (T,)."""
        if self.gramian is None or self.weights is None:
            return None
        present = (~self.weights.isnan()).nonzero().squeeze(1)
        values = self.gramian.subset(present).alignment(self.weights[present].double())
        return values.new_full((len(self.tasks),), torch.nan).index_copy(0, present, values)

    @property
    def conflicts(self) -> Tensor | None:
        """How many pairs of tasks have gradients more than 90 degrees apart, shape ()."""
        return None if self.gramian is None else self.gramian.conflicts()

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """Plain numbers for a logger, such as ``{"loss/seg": 0.7, "cosine/seg/depth": -0.1, "conflicts": 1.0}``.

        Args:
            prefix: Put before every key.

        Returns:
            Losses, weights, norms and alignment by task, cosines by pair, and the number of conflicts.
        """
        columns: Sequence[tuple[str, Tensor | None]] = (
            ("loss", self.losses),
            ("loss_weight", self.loss_weights),
            ("weight", self.weights),
            ("norm", self.norms),
            ("alignment", self.alignment),
        )
        numbers = {
            f"{prefix}{column}/{task}": value
            for column, tensor in columns
            if tensor is not None
            for task, value in zip(self.tasks, tensor.tolist(), strict=True)
        }
        if self.cosines is not None and self.conflicts is not None:
            matrix = self.cosines.tolist()
            for i, first in enumerate(self.tasks):
                for j in range(i + 1, len(self.tasks)):
                    numbers[f"{prefix}cosine/{first}/{self.tasks[j]}"] = matrix[i][j]
            numbers[f"{prefix}conflicts"] = float(self.conflicts)
        return numbers
