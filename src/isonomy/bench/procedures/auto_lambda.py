"""Auto-λ: loss weights under which a virtual step lowers the losses on other data: λ ← Adam(∂/∂λ Σ_t π_t ℓ'_t(Θ')).

Θ' = Θ − α ∇Σ_t λ_t ℓ_t(Θ) is where a step of plain gradient descent at the model's learning rate α would lead, ℓ' are
losses on a batch that the step has not seen, and π marks the tasks that matter, which are all of them here. The chain
rule gives ∂/∂λ_t = −α dᵀ∇ℓ_t(Θ) with d = ∇Σ_t π_t ℓ'_t(Θ'), taken as a central difference of ℓ_t along d. The model
then steps on Σ_t λ_t ℓ_t. Nothing bounds λ: a weight may become negative.

Liu, James, Davison and Johns, "Auto-Lambda: Disentangling Dynamic Task Relationships", TMLR 2022.

Use it when some tasks are there to help others, or when weights should follow generalisation instead of training speed,
and a step may cost four to five times as much.

Args:
    init: λ at the start, the same for every task.
    own_lr: Learning rate of Adam on λ.
    outer: Where ℓ' comes from: ``"train"``, the training set in another order, or ``"val"``, the validation split.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isonomy.bench.procedures.base import Procedure
from isonomy.bench.procedures.virtual import Losses, Parameters, gradient, leaves, moved
from isonomy.errors import unknown

if TYPE_CHECKING:
    from isonomy.bench.trainer import Trainer

# How far the central difference looks to either side, as a length in parameter space.
REACH = 0.01


def hypergradient(
    losses: Losses, parameters: Parameters, train: Any, outer: Any, weights: Tensor, primary: Tensor, rate: float
) -> Tensor:
    """∂/∂λ_t of Σ_t π_t ℓ'_t(Θ'), by central differences.

    Args:
        losses: The T losses at parameters on a batch.
        parameters: Θ.
        train: The batch of the virtual step.
        outer: The batch of ℓ'.
        weights: λ, shape (T,).
        primary: π, shape (T,).
        rate: α.

    Returns:
        Shape (T,), float64; not finite where ℓ' has no gradient, or losses or gradients are not finite.
    """
    at = leaves(parameters)
    there = leaves(moved(at, gradient(losses(at, train) @ weights, at), -rate))
    direction = gradient(losses(there, outer) @ primary, there)
    reach = REACH / torch.stack([d.double().square().sum() for d in direction.values()]).sum().sqrt()
    with torch.no_grad():
        ahead, behind = (losses(moved(at, direction, sign * float(reach)), train) for sign in (1, -1))
    return -rate * (ahead - behind) / (2 * reach)


class AutoLambda(Procedure):
    """Learns λ before every step; see the module."""

    def __init__(self, trainer: Trainer, init: float, own_lr: float, outer: str) -> None:
        super().__init__(trainer)
        if outer not in ("train", "val"):
            raise unknown("outer of auto_lambda", outer, ("train", "val"))
        trainer.weights.fill_(init)
        self.outer = outer
        self.weights = trainer.weights.clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self.weights], own_lr)
        self.primary = torch.ones_like(trainer.weights)
        self.stream: Iterator[Any] = iter(())

    def begin(self, epoch: int) -> None:  # noqa: D102
        self.stream = self.trainer.stream("outer", epoch, self.outer)

    def before_step(self, batch: Any) -> None:  # noqa: D102
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        found = hypergradient(
            self.trainer.losses_at,
            self.trainer.named_parameters(),
            batch,
            next(self.stream),
            self.weights.detach(),
            self.primary,
            rate,
        )
        if found.isfinite().all():
            self.weights.grad = found
            self.optimizer.step()
            self.trainer.weights.copy_(self.weights.detach())

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {"weights": self.weights.detach(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.weights.data.copy_(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
