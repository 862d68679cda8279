"""GradDrop, gradients of one sign for each coordinate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isonomy import distributed
from isonomy.errors import IsonomyError
from isonomy.history import require_real
from isonomy.stages import GradientBalancer, Measurement, step_generator


def drop(rows: Tensor, signed: Tensor, uniform: Tensor, leak: Tensor) -> Tensor:
    """The sum of the gradients of one sign, which is positive where the sign purity exceeds U.

    Args:
        rows: Gradients, shape (K, *shape) or, at a feature, (K, B, *shape).
        signed: What the signs are taken of, shape (K, *shape).
        uniform: U in [0, 1), shape ``shape``.
        leak: What of the other sign passes, shape (K,).

    Returns:
        Their sum over tasks, in the shape of one of the rows.
    """
    # Where no task has a gradient the purity is NaN, neither above U nor below, and nothing passes.
    purity = (1 + signed.sum(0) / signed.abs().sum(0)) / 2
    side = (purity - uniform).sign()
    factors = torch.where(signed * side > 0, 1.0, leak.view(-1, *[1] * uniform.ndim))
    return ((factors if rows.ndim == signed.ndim else factors[:, None]) * rows).sum(0)


class GradDrop(GradientBalancer):
    """Lets gradients of one sign through at each coordinate: the positive ones with probability ½ (1 + Σ g / Σ |g|).

    At a feature the signs are those of Σ_b sign(z_b) ∇_{z_b} ℓ_t, summed over the batch, so that one mask holds for all
    samples; at parameters they are the gradients' own. The expectation of the aggregate is the sum of the gradients at
    the parameters. Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout",
    NeurIPS 2020, Algorithm 1.

    Use it as a regulariser against conflicts at a shared feature; its steps are noisy, and it evens out no scales.

    Args:
        leak: Part of the dropped gradients that passes all the same, in [0, 1]: one number, or one a task.
        seed: Of the stage's own generator.

    Raises:
        IsonomyError: ``leak`` is out of range, or there is not one for every task.
    """

    levels = ("features", "parameters")
    jacobian = True
    leak: Tensor
    steps: Tensor

    def __init__(self, leak: float | Sequence[float] = 0.0, seed: int = 0) -> None:
        super().__init__()
        leaks = list(leak) if isinstance(leak, Sequence) else [leak]
        for value in leaks:
            if not 0 <= value <= 1:
                raise IsonomyError(f"graddrop: leak={leak!r} holds {value!r}; give numbers in [0, 1].")
        self.symmetric = len(set(leaks)) == 1
        self.single, self.seed = not isinstance(leak, Sequence), seed
        self.register_buffer("leak", torch.tensor(leaks, dtype=torch.float64), persistent=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        if self.single:
            self.leak = self.leak.expand(tasks).clone()
        elif len(self.leak) != tasks:
            raise IsonomyError(
                f"graddrop: leak has {len(self.leak)} entries for {tasks} tasks; give one number, or one a task."
            )

    def forward(self, measurement: Measurement) -> list[Tensor]:  # noqa: D102
        assert measurement.jacobian is not None
        jacobian = measurement.jacobian
        require_real(self, jacobian.rows)
        generator = step_generator(self.seed, self.steps)
        aggregate = []
        for z, *parts in zip(jacobian.shared, *jacobian.rows, strict=True):
            rows = torch.stack(parts).to(torch.promote_types(z.dtype, torch.float32))
            signed = rows
            if jacobian.level == "features" and z.ndim:
                signed = distributed.mean((rows * z.sign()).sum(1))
            uniform = torch.rand(signed.shape[1:], generator=generator, dtype=rows.dtype, device="cpu").to(z.device)
            leak = self.leak[measurement.active].to(rows)
            aggregate.append(drop(rows, signed, uniform, leak))
        return aggregate

    def update(self, measurement: Measurement, weights: list[Tensor]) -> None:  # noqa: D102
        self.steps += 1
