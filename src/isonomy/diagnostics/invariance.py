"""Does a method mind in which unit a loss is given? Pixels or metres, a sum or a mean: no more of a task changes.

Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, asks it of whole trainings (Table 1, whose second half
has a loss ten times as large); here a training of a small problem is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isonomy.balancer import Balancer
from isonomy.catalogue import build
from isonomy.errors import IsonomyError

TASKS = ("rescaled", "other")
# One feature for two tasks, which have to agree on it.
SAMPLES, INPUTS, FEATURES = 32, 6, 1
# An epoch, for methods that wait for one.
EPOCH = 20
LEARNING_RATE = 0.02


def invariance(method: str | Callable[[], Balancer], scale: float = 10.0, steps: int = 300) -> float:
    """How far a method's training is moved when one of two losses is multiplied by a number.

    Two linear regressions share one linear feature, which cannot serve both. They are trained twice by Adam, from the
    same start on the same batch, the second time with one loss multiplied. A method that is blind to the scale ends
    with the same errors.

    Args:
        method: A method or hybrid by name; or a function that makes a balancer of two tasks, ``"rescaled"`` and
            ``"other"``, for one with options.
        scale: What the loss of ``"rescaled"`` is multiplied by.
        steps: Of each training.

    Returns:
        How much the errors of the two tasks have changed, the mean of |after / before − 1|: 0 for a method that is
        blind to the scale.

    Raises:
        IsonomyError: There is no such method, or a number is out of range.

    Example:
        >>> isonomy.diagnostics.invariance("db_mtl") < 1e-6 < isonomy.diagnostics.invariance("ew")
        True
    """
    if not 0 < scale < float("inf"):
        raise IsonomyError(f"scale={scale}: it must be a positive number.")
    if steps < 1:
        raise IsonomyError(f"steps={steps}: it must be at least 1.")
    make: Callable[[], Balancer] = method if callable(method) else (lambda: build(method, tasks=TASKS))
    ends, moved = _train(make(), 1.0, steps), _train(make(), scale, steps)
    return float((moved / ends - 1).abs().mean())


def _train(balancer: Balancer, scale: float, steps: int) -> Tensor:
    """The errors at the end of a training, shape (2,)."""
    draws = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws, dtype=torch.float64)

    inputs = drawn(SAMPLES, INPUTS)
    # The noise keeps errors, and with them logarithms, away from where one task is solved.
    targets = inputs @ drawn(INPUTS, len(TASKS)) + drawn(SAMPLES, len(TASKS))
    trunk, *heads = [
        part.requires_grad_() for part in (0.5 * drawn(INPUTS, FEATURES), drawn(FEATURES), drawn(FEATURES))
    ]
    optimizer = torch.optim.Adam([trunk, *heads], LEARNING_RATE)
    scales = (scale, 1.0)

    def errors() -> list[Tensor]:
        feature = inputs @ trunk
        return [(feature @ head - target).square().mean() for head, target in zip(heads, targets.T, strict=True)]

    def losses() -> dict[str, Tensor]:
        return {task: factor * error for task, factor, error in zip(TASKS, scales, errors(), strict=True)}

    for step in range(1, steps + 1):
        several: Any = [losses() for _ in range(balancer.batches)] if balancer.batches > 1 else losses()
        loss = balancer(several, shared=[trunk])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if "step_losses" in balancer.needs:
            with torch.no_grad():
                balancer.step_end(losses())
        if step % EPOCH == 0:
            with torch.no_grad():  # a metric is not rescaled with its loss
                scores = {task: float(1 / (1 + error)) for task, error in zip(TASKS, errors(), strict=True)}
            balancer.epoch_end(scores, learning_rate=LEARNING_RATE)
    with torch.no_grad():
        return torch.stack(errors())
