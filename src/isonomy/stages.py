"""What a stage is: the three kinds that a method is composed of, and what each declares and does.

A stage is pure while it computes and remembers only when told to: the balancer calls ``update`` after it has seen that
the step is finite, so a NaN never reaches a stage's state. Histories of J are too large to keep twice; they move while
they are used, in a ``forward`` that sees finite rows only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isonomy.gramian import Gramian, Rows

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
        uses: Hooks that the user has to call, of ``"epoch_end"``, ``"validation"`` (``epoch_end`` with metrics) and
            ``"step_losses"`` (``step_end``).
        lazy: Buffers that are ``None`` or empty until the first step and take the shape of what is loaded.
        own_lr: Learning rate of the stage's own Adam, for a stage with parameters of its own.
        own_weight_decay: Its weight decay.
        taken: Whether a balancer has the stage already.
    """

    domain: Domain = "any"
    symmetric: bool = True
    uses: tuple[str, ...] = ()
    lazy: tuple[str, ...] = ()
    own_lr: float = 0.0
    own_weight_decay: float = 0.0
    taken: bool = False

    def __init__(self) -> None:
        super().__init__()

    def setup(self, tasks: int) -> None:
        """Creates the state for so many tasks."""

    def epoch_end(self, metrics: Tensor | None, learning_rate: float | None) -> None:
        """Hears that an epoch is over.

        Args:
            metrics: Validation metrics of all tasks, shape (T,), float64, NaN for a task without one; None if there are
                none, which a stage that uses ``"validation"`` never hears.
            learning_rate: Of the user's optimiser in the next epoch; None if unknown.
        """

    def step_end(self, losses: Tensor, active: Tensor) -> list[Tensor]:
        """Hears the losses of the same batch after the model's step.

        Args:
            losses: Finite, shape (K,), float64.
            active: Positions of these tasks among all T, shape (K,).

        Returns:
            Gradients for the stage's own parameters, in their order; none where there is nothing to learn.
        """
        return []

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
class Jacobian:
    """The task gradients themselves, finite and unscaled, for methods that work on their elements.

    Attributes:
        batches: For each independent batch of the step, which is nearly always one, the rows of the K active tasks. At
            the parameters they are means over all processes; at a feature they hold this process's samples.
        shared: The tensors at which they were taken, detached.
        level: Which of the two these are.
    """

    batches: list[Rows]
    shared: list[Tensor]
    level: Level

    @property
    def rows(self) -> Rows:
        """The mean over the batches."""
        if len(self.batches) == 1:
            return self.batches[0]
        return [
            [torch.stack(parts).mean(0) for parts in zip(*rows, strict=True)]
            for rows in zip(*self.batches, strict=True)
        ]

    def subset(self, index: Tensor) -> Jacobian:
        """The rows of the tasks at the positions ``index``, shape (K,)."""
        return Jacobian([[rows[i] for i in index.tolist()] for rows in self.batches], self.shared, self.level)


@dataclass(frozen=True)
class Measurement:
    """What a gradient balancer sees of a step: K active tasks, those with a loss and a gradient that is not zero.

    Attributes:
        gramian: Of the balanced losses' gradients, norms (K,) and cosines (K, K).
        active: Positions of these tasks among all T, shape (K,).
        losses: Raw losses, shape (K,); None when only a gramian was given.
        loss_weights: Effective weights of the loss balancers, shape (K,).
        jacobian: The gradients themselves, for a method that declares that it reads them.
    """

    gramian: Gramian
    active: Tensor
    losses: Tensor | None
    loss_weights: Tensor
    jacobian: Jacobian | None = None

    def subset(self, index: Tensor) -> Measurement:
        """What a method sees of the tasks at the positions ``index``, shape (K,)."""
        losses = None if self.losses is None else self.losses[index]
        jacobian = self.jacobian and self.jacobian.subset(index)
        return Measurement(self.gramian.subset(index), self.active[index], losses, self.loss_weights[index], jacobian)


class GradientBalancer(Stage, ABC):
    """Turns the gramian of the task gradients into one weight a task; where that is not enough, J into the aggregate.

    Attributes:
        heads: Whether heads get their own task's gradient or the weighted one, as the method's paper says.
        levels: Where the gradients can be measured, the paper's choice first.
        max_norm: The aggregate at the shared parameters is scaled down to this norm; None leaves it as it is.
        uses_losses: Whether the weights depend on the losses too.
        jacobian: Whether the method reads the task gradients themselves, which costs T x P numbers of memory.
        batches: How many independent batches a step may bring.
        is_update: Whether the aggregate is an optimiser's update already, to be applied by plain SGD.
        copes_with_zeros: Whether the method gives tasks whose gradient is zero the weight 0 by itself; it gets them
            all then, and no GPU is waited for to find out which they are.
    """

    heads: Heads = "own"
    levels: tuple[Level, ...] = LEVELS
    max_norm: float | None = None
    uses_losses: bool = False
    jacobian: bool = False
    batches: int = 1
    is_update: bool = False
    copes_with_zeros: bool = False

    def setup(self, tasks: int) -> None:
        """Notes the number of tasks."""
        self.tasks = tasks

    @abstractmethod
    def forward(self, measurement: Measurement) -> Tensor | list[Tensor]:
        """The weights w of the active tasks, shape (K,), float64: the aggregate is Jᵀw.

        A method that works on the elements of J returns the aggregate itself, a tensor for each of
        ``measurement.jacobian.shared``.
        """

    def head_weights(self, measurement: Measurement, weights: Tensor) -> Tensor:
        """What ``heads="weighted"`` multiplies the heads' gradients by, shape (K,): w, before ``max_norm``."""
        return weights

    def own_gradients(self, measurement: Measurement) -> list[Tensor]:
        """Gradients for the stage's own parameters, in their order; none where there is nothing to learn."""
        return []

    def update(self, measurement: Measurement, weights: Any) -> None:
        """Remembers a finite step, with what ``forward`` returned for it."""


def step_generator(seed: int, step: Tensor) -> torch.Generator:
    """The random numbers of one step: a function of the seed and the step alone.

    Every process of a data-parallel run draws the same, and a resumed run goes on where the killed one stopped.

    Args:
        seed: The stage's seed.
        step: How many steps the stage has remembered, a 0-d integer tensor.
    """
    # Seeds such as torch.initial_seed() are so large that the product leaves what a generator takes.
    return torch.Generator("cpu").manual_seed((seed * 1_000_003 + int(step)) % 2**64)
