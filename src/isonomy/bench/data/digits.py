"""``digits``: two handwritten digits on one canvas, read by three tasks whose losses live on unequal scales.

The digits are real handwriting that comes with scikit-learn, so nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.architectures import Design
from isonomy.bench.architectures.hps import HPS
from isonomy.bench.data import Embedded, Losses, Metric, Task
from isonomy.bench.parts import own
from isonomy.bench.recipe import Recipe
from isonomy.bench.seeds import key, order

VERSION = 1
SIZES = {"train": 12_000, "val": 2_000, "test": 3_000}
SOURCES = {"train": slice(0, 1_077), "val": slice(1_077, 1_437), "test": slice(1_437, 1_797)}
DIGIT, SHIFT = 8, 4
CANVAS = DIGIT + SHIFT
FEATURES = 50

# ``right`` counts a twentieth, as if it were measured in another unit: plain summing then starves it.
SCALES = {"left": 1.0, "right": 0.05, "sum": 1.0}
# ``sum`` is predicted in units of about one standard deviation from the middle of 0..18, as any regression would be, so
# its squared error begins near 1, on the scale of the cross-entropies.
MIDDLE, UNIT = 9.0, 4.0
# With the option ``attributes``: is the left digit a 0, a 1, …, and likewise the right one?
ATTRIBUTES = tuple(f"{side}_is_{digit}" for side in ("left", "right") for digit in range(10))
# Mean absolute error of always answering 9, for two digits that are each equally likely.
TRIVIAL = 3.3


class Split(NamedTuple):
    """A split's images, shape (N, 1, 12, 12), in [0, 1], and labels, shape (N,)."""

    images: Tensor
    left: Tensor
    right: Tensor

    def to(self, device: Any) -> Split:
        """The same split on a device."""
        return Split(*(tensor.to(device) for tensor in self))


class Sources(NamedTuple):
    """A split's source digits: images (n, 8, 8) in [0, 1] and classes (n,)."""

    images: NDArray[np.float32]
    classes: NDArray[np.int64]


@cache
def sources(split: str) -> Sources:
    """The source digits that a split's samples are made of; no digit is in two splits.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second that only training has to spend

    images, classes = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(classes))[SOURCES[split]]
    scaled = (images[chosen] / 16).astype(np.float32).reshape(-1, DIGIT, DIGIT)
    return Sources(scaled, classes[chosen].astype(np.int64))


def pairs(split: str, count: int) -> NDArray[np.int64]:
    """The source digits (left, right) of a split's first samples, shape (count, 2).

    The numbers are drawn in one stream, two a sample, so sample i does not depend on how many follow.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        count: How many samples.
    """
    generator = np.random.default_rng(key("digits", VERSION, split))
    return generator.integers(0, len(sources(split).classes), size=(count, 2))


@cache
def samples(split: str) -> Split:
    """A whole split: the left digit at the upper left, the right one at the lower right, the brighter pixel wins.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
    """
    images, classes = sources(split)
    left, right = pairs(split, SIZES[split]).T
    canvas = np.zeros((SIZES[split], 1, CANVAS, CANVAS), dtype=np.float32)
    canvas[:, 0, :DIGIT, :DIGIT] = images[left]
    canvas[:, 0, SHIFT:, SHIFT:] = np.maximum(canvas[:, 0, SHIFT:, SHIFT:], images[right])
    return Split(torch.from_numpy(canvas), torch.from_numpy(classes[left]), torch.from_numpy(classes[right]))


@cache
def _on(split: str, device: torch.device) -> Split:
    return samples(split).to(device)


def encoder() -> nn.Sequential:
    """A small LeNet: two 3 x 3 convolutions and a feature of 50 numbers."""
    side = (CANVAS - 4) // 2
    return nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * side * side, FEATURES),
        nn.ReLU(),
    )


def _head(task: str) -> Callable[[], nn.Module]:
    outputs = {"left": 10, "right": 10, "sum": 1}.get(task, 2)
    return lambda: nn.Linear(FEATURES, outputs)


def _accuracy(metrics: Mapping[str, float]) -> float:
    return metrics["accuracy"] / 100


def _explained(metrics: Mapping[str, float]) -> float:
    """The share of the trivial answer's error that is gone."""
    return min(max(1 - metrics["mae"] / TRIVIAL, 0.0), 1.0)


def target(split: Split, task: str) -> Tensor:
    """What a task has to predict: a class, or the sum of both digits in units of ``UNIT`` from ``MIDDLE``.

    Args:
        split: Samples.
        task: ``"left"``, ``"right"``, ``"sum"`` or one of ``ATTRIBUTES``.
    """
    if task == "sum":
        return (split.left + split.right - MIDDLE) / UNIT
    side, _, digit = task.partition("_is_")
    classes = split.left if side == "left" else split.right
    return (classes == int(digit)).long() if digit else classes


@dataclass
class Digits(Embedded):
    """Which digit is on the left, which on the right, and what is their sum. See ``Problem`` for the members.

    Attributes:
        attributes: Whether to ask twenty questions instead, as CelebA asks forty, with losses on one scale: is the left
            digit a 0, …, is the right one a 9? To deny them all is right nine times in ten.
    """

    options: ClassVar[tuple[str, ...]] = ("attributes",)

    name: str = "digits"
    summary: str = "two overlapping handwritten digits: classify left and right, regress their sum (embedded, seconds)"
    version: int = VERSION
    tasks: tuple[Task, ...] = field(init=False)
    architectures: tuple[str, ...] = ("hps",)
    backbones: tuple[str, ...] = ()
    size: None = None
    levels: tuple[str, ...] = ("features", "parameters")
    recipe: Recipe = Recipe(epochs=8, learning_rate=1e-3, schedule="linear")
    batch_size: int = 128
    attributes: bool = False

    def __post_init__(self) -> None:
        classified = ATTRIBUTES if self.attributes else ("left", "right")
        self.tasks = tuple(Task(name, (Metric("accuracy", up=True, unit="%"),), _accuracy) for name in classified)
        if not self.attributes:
            self.tasks += (Task("sum", (Metric("mae", up=False),), _explained),)

    def network(self, design: Design, tasks: Sequence[str], seed: int) -> nn.Module:  # noqa: D102
        return HPS(encoder, {task: _head(task) for task in tasks}, seed)

    def batches(self, seed: int, epoch: int, device: Any, split: str = "train") -> Iterator[Split]:  # noqa: D102
        data = _on(split, torch.device(device))
        chosen: Tensor
        for chosen in torch.split(order(len(data.left), seed, epoch).to(device), self.batch_size):
            yield Split(*(tensor[own(chosen)] for tensor in data))

    def losses(self, model: Callable[..., Any], batch: Split, tasks: Sequence[str]) -> Losses:  # noqa: D102
        feature, predictions, *_ = model(batch.images)
        losses = {}
        for task in tasks:
            truth = target(batch, task)
            loss = (
                functional.mse_loss(predictions[task][:, 0], truth)
                if task == "sum"
                else functional.cross_entropy(predictions[task], truth)
            )
            losses[task] = SCALES.get(task, 1.0) * loss
        return Losses(losses, feature)

    def evaluate(  # noqa: D102
        self, model: nn.Module, tasks: Sequence[str], split: str, thorough: bool = True
    ) -> dict[str, dict[str, float]]:
        from isonomy.bench.metrics import MAE, Accuracy  # noqa: PLC0415 - seconds that only training has to spend

        device = next(model.parameters()).device
        data = _on(split, device)
        with torch.inference_mode():
            predictions = model(data.images)[1]
        values = {}
        for task in tasks:
            if task == "sum":
                error = MAE().to(device)
                error.update(predictions[task][:, 0], target(data, task))
                values[task] = {"mae": UNIT * float(error.compute()["MAE"])}
            else:
                accuracy = Accuracy().to(device)
                accuracy.update(predictions[task], target(data, task))
                values[task] = {"accuracy": float(accuracy.compute()["accuracy"])}
        return values
