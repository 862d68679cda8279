"""MOML: weights softmax(α), α ← Adam(Σ_i γ_i q_i), the common descent of all validation losses after a virtual step.

With v = softmax(α), Θ' = Θ − η Σ_t v_t ∇ℓ_t(Θ) is one virtual step. Its effect on task i's validation loss is
q_i = ∂ℓ'_i(Θ')/∂α = −η J(v) [∇ℓ_tᵀ∇ℓ'_i(Θ')]_t with J(v) = diag(v) − vvᵀ: exact, and without second derivatives,
because a single step of gradient descent is linear in v. γ is the point of least norm in the convex hull of the
normalised q_i, as in MGDA; α follows Σ_i γ_i q_i, not normalised. The model steps on Σ_t softmax(α)_t ℓ_t.

Ye, Lin, Yue, Guo, Xiao and Zhang, "Multi-Objective Meta Learning", NeurIPS 2021.

Use it for a few tasks whose validation losses should all fall together: a step costs two backward passes a task, and
memory for all their gradients at once.

Args:
    inner_lr: η, the length of the virtual step.
    own_lr: Learning rate of Adam on α.
    normalize: What a q_i is divided by before γ is sought: ``"l2"``, its norm, ``"loss"``, the validation loss,
        ``"loss+"``, both, or ``"none"``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isonomy.bench.procedures.base import Procedure
from isonomy.bench.procedures.virtual import Losses, Parameters, gradient, leaves, moved
from isonomy.errors import unknown
from isonomy.gramian import Gramian
from isonomy.solvers.min_norm import min_norm

if TYPE_CHECKING:
    from isonomy.bench.trainer import Trainer

# A q_i shorter than this has no direction.
SHORTEST = 1e-12


def _task_gradients(losses: Tensor, parameters: Parameters) -> list[dict[str, Tensor]]:
    return [gradient(loss, parameters, retain=True) for loss in losses]


def outer_gradients(
    losses: Losses, parameters: Parameters, train: Any, outer: Any, weights: Tensor, rate: float
) -> tuple[Tensor, Tensor]:
    """How each task's validation loss after a virtual step depends on α.

    Args:
        losses: The T losses at parameters on a batch.
        parameters: Θ.
        train: The batch of the virtual step.
        outer: The validation batch.
        weights: v = softmax(α), shape (T,).
        rate: η.

    Returns:
        q, shape (T, T), one q_i a row, each of which sums to 0; and the validation losses at Θ', shape (T,).
    """
    at = leaves(parameters)
    before = _task_gradients(losses(at, train), at)
    step = {name: sum(w.to(g[name]) * g[name] for w, g in zip(weights, before, strict=True)) for name in at}
    there = leaves(moved(at, step, -rate))
    values = losses(there, outer)
    after = _task_gradients(values, there)
    # products[i, t] = ∇ℓ_tᵀ ∇ℓ'_i(Θ'), summed over the parameter tensors in float64.
    products = torch.stack(
        [
            torch.stack(
                [torch.stack([(g[name].double() * h[name].double()).sum() for name in at]).sum() for g in before]
            )
            for h in after
        ]
    )
    return -rate * weights * (products - (products @ weights)[:, None]), values.detach()


def common_descent(gradients: Tensor, values: Tensor, normalize: str) -> Tensor:
    """γ, the convex combination of least norm.

    Args:
        gradients: q, shape (T, T).
        values: The validation losses, shape (T,).
        normalize: See the module.

    Returns:
        Shape (T,), float64: γ ≥ 0 and Σ γ = 1, or all zeros if no q_i has a direction. A q_i without one is left out.
    """
    norms = gradients.norm(dim=1)
    divisors = {"l2": norms, "loss": values, "loss+": norms * values, "none": torch.ones_like(norms)}[normalize]
    shares = torch.zeros_like(norms)
    (usable,) = torch.where(norms > SHORTEST)
    if len(usable):
        scaled = gradients[usable] / divisors[usable, None]
        shares[usable] = min_norm(Gramian.of(scaled @ scaled.T))
    return shares


class MOML(Procedure):
    """Learns α before every step; see the module."""

    def __init__(self, trainer: Trainer, inner_lr: float, own_lr: float, normalize: str) -> None:
        super().__init__(trainer)
        if normalize not in ("l2", "loss", "loss+", "none"):
            raise unknown("normalize of moml", normalize, ("l2", "loss", "loss+", "none"))
        self.inner_lr, self.normalize = inner_lr, normalize
        self.logits = torch.full_like(trainer.weights, 1 / len(trainer.weights)).requires_grad_()
        self.optimizer = torch.optim.Adam([self.logits], own_lr)
        self.stream: Iterator[Any] = iter(())
        self._write()

    def _write(self) -> None:
        self.trainer.weights.copy_(self.logits.detach().softmax(0))

    def begin(self, epoch: int) -> None:  # noqa: D102
        self.stream = self.trainer.stream("outer", epoch, "val")

    def before_step(self, batch: Any) -> None:  # noqa: D102
        found, values = outer_gradients(
            self.trainer.losses_at,
            self.trainer.named_parameters(),
            batch,
            next(self.stream),
            self.trainer.weights,
            self.inner_lr,
        )
        if not found.isfinite().all():
            return
        shares = common_descent(found, values, self.normalize)
        if shares.any():
            self.logits.grad = shares @ found
            self.optimizer.step()
            self._write()

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {"logits": self.logits.detach(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.logits.data.copy_(state["logits"])
        self.optimizer.load_state_dict(state["optimizer"])
        # The weights themselves come back with the balancer.
