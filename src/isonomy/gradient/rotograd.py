"""RotoGrad, feature gradients of one norm and learned rotations in front of the heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isonomy import distributed
from isonomy.errors import IsonomyError
from isonomy.gramian import Gramian
from isonomy.stages import GradientBalancer, Measurement


def turn(rotation: Tensor, z: Tensor) -> Tensor:
    """R z along dimension 1.

    Args:
        rotation: R, shape (F, F).
        z: Shape (B, F, ...).
    """
    return torch.einsum("ij,bj...->bi...", rotation.to(z.dtype), z)


def exponential(generators: Tensor) -> Tensor:
    """Rotations exp(A − Aᵀ) for any matrices A, shape (T, F, F)."""
    return torch.matrix_exp(generators - generators.mT)


def misalignment(rotations: Tensor, rows: Sequence[Tensor], gramian: Gramian) -> Tensor:
    """‖R_t v − R_t g_t‖² with the second term held fixed: how far each task's gradient is from the mean direction v.

    Args:
        rotations: R, shape (K, F, F).
        rows: g, K tensors of shape (B, F, ...).
        gramian: Of the whole gradients: v is the mean of the rows, each scaled to the norm of their mean.

    Returns:
        The mean over samples and positions, shape (K,), differentiable in R.
    """
    norm = gramian.combined_norm(torch.full_like(gramian.norms, 1 / len(rows)))
    v = torch.stack([row * factor.to(row) for row, factor in zip(rows, norm / gramian.norms, strict=True)]).mean(0)
    errors = [turn(R, v) - turn(R.detach(), row) for R, row in zip(rotations, rows, strict=True)]
    return torch.stack([error.square().sum(1).mean() for error in errors])


class RotoGrad(GradientBalancer):
    """Scales the tasks' feature gradients to one norm, and learns rotations R_t of the feature that align them.

    The backbone gets c Σ_t g_t / ‖g_t‖, where g_t = ∂ℓ_t/∂z and c is the mean of the norms weighted by how little each
    has fallen since the first step. R_t = exp(A_t − A_tᵀ) learns from ‖R_t v − ∂ℓ_t/∂r_t‖², with v the mean direction.
    Javaloy and Valera, "RotoGrad: Gradient Homogenization in Multitask Learning", ICLR 2022, Algorithm 1.

    Each head reads its own rotated feature::

        rotograd = isonomy.gradient.RotoGrad(features=64)
        balancer = isonomy.Balancer(rotograd, tasks=2)
        r = rotograd.rotate(z)  # z: (B, 64) or (B, 64, H, W)
        balancer([loss_a(head_a(r[0])), loss_b(head_b(r[1]))], shared=z).backward()

    The rotations are part of the model: rotate in evaluation too, and save the balancer's state with the model's.

    Use it where tasks conflict at a narrow feature and the heads can get used to a slowly turning input; a rotation
    costs F x F numbers a task and a matrix exponential a step.

    Args:
        features: F, the size of the feature's dimension 1.
        scale: Whether gradients are scaled to one norm; without it the method is the paper's Rotate Only.
        burn_in: Step at which norms are compared with new first values, since the very first ones are untypical.
        own_lr: Learning rate of A, to be lower than the model's.

    Raises:
        IsonomyError: ``features`` is not positive, ``burn_in`` negative, or ``shared=`` no single feature of this size.
    """

    levels = ("features",)
    jacobian = True
    first: Tensor
    steps: Tensor

    def __init__(self, features: int, scale: bool = True, burn_in: int = 20, own_lr: float = 1e-4) -> None:
        super().__init__()
        if not features >= 1:
            raise IsonomyError(f"rotograd: features={features!r} must be 1 or more, the size of z's dimension 1.")
        if not burn_in >= 0:
            raise IsonomyError(f"rotograd: burn_in={burn_in!r} must not be negative; the official code uses 20.")
        self.features, self.scale, self.burn_in, self.own_lr = features, scale, burn_in, own_lr

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        self.generators = nn.Parameter(torch.zeros(tasks, self.features, self.features))
        self.register_buffer("first", torch.zeros(tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(tasks, dtype=torch.int64))

    def rotate(self, z: Tensor) -> list[Tensor]:
        """R_t z for each task, which its head is to read; the losses' gradients do not reach R.

        Args:
            z: The shared feature, shape (B, F, ...).

        Returns:
            T tensors of the same shape, in task order.

        Raises:
            IsonomyError: z has another shape, or the stage belongs to no balancer yet.
        """
        if not self.taken:
            raise IsonomyError("rotograd: the number of tasks is unknown; pass the stage to isonomy.Balancer first.")
        self._require(z)
        return [turn(rotation, z) for rotation in exponential(self.generators.detach()).to(z.device)]

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        assert measurement.jacobian is not None
        if len(measurement.jacobian.shared) != 1:
            raise IsonomyError("rotograd turns one feature: pass it alone, shared=z.")
        self._require(measurement.jacobian.shared[0])
        norms = measurement.gramian.norms
        if not self.scale:
            return torch.ones_like(norms)
        ratios = norms / self._first(measurement)
        return (ratios / ratios.sum() @ norms) / norms

    def update(self, measurement: Measurement, weights: Tensor) -> None:  # noqa: D102
        self.first[measurement.active] = self._first(measurement)
        self.steps[measurement.active] += 1

    def own_gradients(self, measurement: Measurement) -> list[Tensor]:  # noqa: D102
        assert measurement.jacobian is not None
        # Rows are of this process's mean; the whole batch's would be divided by all samples.
        share = 1 / distributed.world_size()
        rows = [row[0].to(self.generators.dtype) * share for row in measurement.jacobian.rows]
        generators = self.generators.detach().requires_grad_()
        errors = misalignment(exponential(generators)[measurement.active], rows, measurement.gramian)
        # The mean over all samples, of which this process may have more than another.
        size = measurement.gramian.norms.new_tensor(float(rows[0].shape[0]))
        part = (size / distributed.mean(size.clone())).to(errors)
        return [distributed.mean(gradient) for gradient in torch.autograd.grad((errors * part).sum(), [generators])]

    def _first(self, measurement: Measurement) -> Tensor:
        """Norms that this step's are compared with, shape (K,)."""
        steps = self.steps[measurement.active]
        anew = (steps == 0) | (steps == self.burn_in)
        return torch.where(anew, measurement.gramian.norms, self.first[measurement.active])

    def _require(self, z: Tensor) -> None:
        if z.ndim < 2 or z.shape[1] != self.features:
            raise IsonomyError(
                f"rotograd: the feature has shape {tuple(z.shape)}, and dimension 1 has to be features={self.features}."
            )
