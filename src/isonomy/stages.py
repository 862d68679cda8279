"""What a stage is: the three kinds that a method is composed of, and what each declares and does.

A stage is pure while it computes and remembers only when told to: the balancer calls ``update`` after it has seen that
the step is finite, so a NaN never reaches a stage's state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isonomy.gramian import Gramian

Level = Literal["parameters", "features"]
Heads = Literal["own", "weighted"]
FeatureReduce = Literal["flatten", "batch_sum"]
Domain = Literal["any", "nonnegative", "positive"]
LEVELS: tuple[Level, ...] = ("parameters", "features")


class Stage(nn.Module):
    """Base of the stages: remembers things in buffers and parameters, which make up its ``state_dict``.

    A stage learns how many tasks there are when the balancer calls ``setup``.

    Attributes:
        domain: The losses for which the method is defined.
        symmetric: Whether permuting the tasks permutes the weights, and nothing else.
        uses: Hooks that the user has to call, of ``"epoch_end"`` and ``"step_losses"``.
        lazy: Buffers that are ``None`` until the first step and take the shape of what is loaded.
        own_lr: Learning rate of the stage's own Adam, for a stage with parameters of its own.
        taken: Whether a balancer has the stage already.
    """

    domain: Domain = "any"
    symmetric: bool = True
    uses: tuple[str, ...] = ()
    lazy: tuple[str, ...] = ()
    own_lr: float = 0.0
    taken: bool = False

    def __init__(self) -> None:
        super().__init__()

    def setup(self, tasks: int) -> None:
        """Creates the state for so many tasks."""

    def epoch_end(self, metrics: Mapping[str, float] | None) -> None:
        """Hears that an epoch is over."""

    def step_end(self, losses: Tensor, active: Tensor) -> None:
        """Hears the losses, shape (K,), of the same batch after the model's step."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.lazy:
            saved = state_dict.get(prefix + name)
            device = next(buffer.device for buffer in self.buffers())
            self._buffers[name] = None if saved is None else saved.to(device, copy=True)
        super()._load_from_state_dict(state_dict, prefix, *args)


class LossBalancer(Stage, ABC):
    """Turns losses into balanced losses.

    The derivative of the balanced losses' sum with respect to a loss is that task's effective weight, which is all the
    model sees of a loss balancer; its derivative with respect to the stage's parameters trains them.
    """

    @abstractmethod
    def forward(self, losses: Tensor, active: Tensor) -> Tensor:
        """The balanced losses, differentiable in the losses and in the stage's own parameters.

        Args:
            losses: Losses of the tasks of this batch, shape (K,), float64; under data parallelism the mean of all
                processes.
            active: Positions of these tasks among all T, shape (K,).

        Returns:
            Balanced losses, shape (K,).
        """

    def update(self, losses: Tensor, active: Tensor) -> None:
        """Remembers a step whose losses and gradients were finite."""


class Smoothing(Stage, ABC):
    """Turns the task gradients of this step into smoothed ones; works on J itself, not on the gramian."""

    def levels(self) -> tuple[Level, ...]:
        """The levels whose gradients can be compared from one step to the next."""
        return ("parameters",)

    @abstractmethod
    def forward(self, rows: list[list[Tensor]], active: Tensor) -> list[list[Tensor]]:
        """Smoothed rows of J. Called only with finite rows; remembers them.

        Args:
            rows: For each task of this batch, its gradient with respect to each shared tensor.
            active: Positions of these tasks among all T, shape (K,).

        Returns:
            Rows of the same shapes.
        """


@dataclass(frozen=True)
class Measurement:
    """What a gradient balancer sees of a step: K active tasks, those with a loss and a gradient that is not zero.

    Attributes:
        gramian: Of the balanced losses' gradients, norms (K,) and cosines (K, K).
        active: Positions of these tasks among all T, shape (K,).
        losses: Raw losses, shape (K,); None when only a gramian was given.
        loss_weights: Effective weights of the loss balancers, shape (K,).
    """

    gramian: Gramian
    active: Tensor
    losses: Tensor | None
    loss_weights: Tensor


class GradientBalancer(Stage, ABC):
    """Turns the gramian of the task gradients into one weight a task.

    Attributes:
        heads: Whether heads get their own task's gradient or the weighted one, as the method's paper says.
        level: Where the method's paper measures the gradients.
        max_norm: The aggregate at the shared parameters is scaled down to this norm; None leaves it as it is.
        uses_losses: Whether the weights depend on the losses too.
    """

    heads: Heads = "own"
    level: Level = "parameters"
    max_norm: float | None = None
    uses_losses: bool = False

    def setup(self, tasks: int) -> None:
        """Notes the number of tasks."""
        self.tasks = tasks

    @abstractmethod
    def forward(self, measurement: Measurement) -> Tensor:
        """The weights w of the active tasks, shape (K,), float64: the aggregate is Jᵀw."""

    def head_weights(self, measurement: Measurement, weights: Tensor) -> Tensor:
        """What ``heads="weighted"`` multiplies the heads' gradients by, shape (K,): w, before ``max_norm``."""
        return weights

    def own_gradients(self, measurement: Measurement) -> list[Tensor]:
        """Gradients for the stage's own parameters, in their order."""
        return []

    def update(self, measurement: Measurement, weights: Tensor) -> None:
        """Remembers a finite step."""


def step_generator(seed: int, step: Tensor) -> torch.Generator:
    """The random numbers of one step: a function of the seed and the step alone.

    Every process of a data-parallel run draws the same, and a resumed run goes on where the killed one stopped.

    Args:
        seed: The stage's seed.
        step: How many steps the stage has remembered, a 0-d integer tensor.
    """
    return torch.Generator("cpu").manual_seed(seed * 1_000_003 + int(step))
