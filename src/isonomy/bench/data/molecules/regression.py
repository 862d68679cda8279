"""What data sets of molecules have in common: eleven properties, predicted by one message-passing network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.architectures import Design
from isonomy.bench.architectures.hps import HPS
from isonomy.bench.backbones import mpnn
from isonomy.bench.backbones.heads import LinearHead
from isonomy.bench.data import Embedded, Losses, Metric, Task
from isonomy.bench.data.molecules.chemistry import TARGETS
from isonomy.bench.parts import own
from isonomy.bench.seeds import order


class Batch(NamedTuple):
    """Molecules and their properties.

    Attributes:
        molecules: What the network sees, B molecules.
        targets: In their units, in the order of ``TARGETS``, shape (B, 11).
    """

    molecules: mpnn.Molecules
    targets: Tensor

    def at(self, chosen: Tensor | slice) -> Batch:
        """Some of them."""
        return Batch(mpnn.Molecules(*(tensor[chosen] for tensor in self.molecules)), self.targets[chosen])

    def to(self, device: Any) -> Batch:
        """The same on a device."""
        return Batch(mpnn.Molecules(*(tensor.to(device) for tensor in self.molecules)), self.targets.to(device))


class Scale(NamedTuple):
    """Where properties lie, each of shape (11,).

    Attributes:
        mean: Of a property.
        deviation: Its standard deviation.
        spread: Its mean absolute deviation from the mean: the error of always answering the mean.
    """

    mean: Tensor
    deviation: Tensor
    spread: Tensor

    @classmethod
    def of(cls, targets: Tensor) -> Scale:
        """That of these properties, (M, 11)."""
        targets = targets.double()
        mean = targets.mean(0)
        found = (mean, targets.std(0, correction=0), (targets - mean).abs().mean(0))
        return cls(*(tensor.float() for tensor in found))

    def to(self, device: Any) -> Scale:
        """The same on a device."""
        return Scale(*(tensor.to(device) for tensor in self))


class Regression(Embedded):
    """Predict eleven properties of a molecule. See ``Problem`` for the members.

    Attributes:
        width: Of the network's states.
        hidden: Of its edge network.
        judged_at_once: Molecules, which bounds the memory.
    """

    width: ClassVar[int]
    hidden: ClassVar[int]
    judged_at_once: ClassVar[int]
    batch_size: int

    @abstractmethod
    def count(self, split: str) -> int:
        """How many molecules a split has."""

    @abstractmethod
    def read(self, split: str, chosen: Tensor, device: torch.device) -> Batch:
        """Molecules of a split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            chosen: Their positions in it, on the CPU.
            device: Where to have them.
        """

    @abstractmethod
    def units(self, device: Any) -> tuple[Tensor, Tensor]:
        """What a network's prediction of 0 stands for, and of one more; each of shape (11,)."""

    @abstractmethod
    def scale(self) -> Scale:
        """Where the properties lie that the errors are compared with."""

    def properties(self, units: Sequence[str]) -> tuple[Task, ...]:
        """The tasks.

        Args:
            units: Of the properties.
        """
        return tuple(
            Task(target, (Metric("mae", up=False, unit=unit),), partial(_explained, self, column))
            for column, (target, unit) in enumerate(zip(TARGETS, units, strict=True))
        )

    def network(self, design: Design, tasks: Sequence[str], seed: int) -> nn.Module:
        """A message-passing network and a linear head a task."""
        encoder = partial(mpnn.MPNN, self.width, self.hidden)
        return HPS(encoder, {task: partial(LinearHead, (self.width,), 1) for task in tasks}, seed)

    def batches(self, seed: int, epoch: int, device: Any, split: str = "train") -> Iterator[Batch]:
        """The batches of an epoch; the last one is of as many molecules as are left."""
        chosen: Tensor
        for chosen in torch.split(order(self.count(split), seed, epoch), self.batch_size):
            yield self.read(split, own(chosen), torch.device(device))

    def losses(self, model: Callable[..., Any], batch: Batch, tasks: Sequence[str]) -> Losses:
        """Mean squared errors, in the units that the network learns."""
        output = model(batch.molecules)
        zero, one = self.units(batch.targets.device)
        wanted = dict(zip(TARGETS, ((batch.targets - zero) / one).T, strict=True))
        losses = {task: functional.mse_loss(output.predictions[task][:, 0], wanted[task]) for task in tasks}
        return Losses(losses, output.feature, output.penalty)

    def evaluate(
        self, model: nn.Module, tasks: Sequence[str], split: str, thorough: bool = True
    ) -> dict[str, dict[str, float]]:
        """Mean absolute errors in the properties' units."""
        from isonomy.bench.metrics import MAE  # noqa: PLC0415 - seconds that only training has to spend

        device = next(model.parameters()).device
        zero, one = self.units(device)
        errors = {task: MAE().to(device) for task in tasks}
        chosen: Tensor
        for chosen in torch.split(torch.arange(self.count(split)), self.judged_at_once):
            batch = self.read(split, chosen, device)
            with torch.inference_mode():
                predictions = model(batch.molecules).predictions
            for task, error in errors.items():
                column = TARGETS.index(task)
                error.update(predictions[task][:, 0] * one[column] + zero[column], batch.targets[:, column])
        return {task: {"mae": float(error.compute()["MAE"])} for task, error in errors.items()}


def _explained(problem: Regression, column: int, metrics: Mapping[str, float]) -> float:
    """The share of the error of always answering the mean that is gone."""
    return min(max(1 - metrics["mae"] / float(problem.scale().spread[column]), 0.0), 1.0)
