"""Domains with images of their own: every task is a domain, and a step sees a batch of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from itertools import count, islice
from operator import add
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.data import Embedded, Losses, Metric, Task
from isonomy.bench.parts import own, turns
from isonomy.bench.seeds import key, order
from isonomy.errors import IsonomyError

# Of every class of a domain, in tenths; the rest is for testing.
TRAIN, VAL = 6, 2
# Images that are judged at once, which bounds the memory.
BLOCK = 256


class Split(NamedTuple):
    """Images of a domain, shape (N, C, H, W), in [0, 1], and their classes, shape (N,)."""

    images: Tensor
    labels: Tensor

    def to(self, device: Any) -> Split:
        """The same on a device."""
        return Split(self.images.to(device), self.labels.to(device))


Batch = Mapping[str, Split]


def cut(samples: NDArray[Any], seed: int) -> list[NDArray[Any]]:
    """The samples of one class of one domain for training, validation and testing, rounded in favour of testing.

    Args:
        samples: In an order that nothing else has a part in.
        seed: Of the draw.
    """
    shuffled = np.random.default_rng(seed).permutation(samples)
    train, val = len(samples) * TRAIN // 10, len(samples) * VAL // 10
    return np.split(shuffled, [train, train + val])


def domain_task(name: str) -> Task:
    """The task of telling a domain's classes apart.

    Args:
        name: Of the domain.
    """
    return Task(name, (Metric("accuracy", up=True, unit="%"),), _accuracy)


def _accuracy(metrics: Mapping[str, float]) -> float:
    return metrics["accuracy"] / 100


class Domains(Embedded, ABC):
    """What data sets of several domains have in common; see ``Problem`` for the members.

    An epoch has as many steps as the largest domain has whole batches, with one task or several; smaller domains begin
    again in a new order. A subclass has the attributes of a ``Problem`` and ``batch_size``, images a step and domain.
    There is no shared feature: the tasks' images differ, and so do the features.
    """

    name: str
    tasks: tuple[Task, ...]
    batch_size: int

    @abstractmethod
    def count(self, domain: str, split: str) -> int:
        """How many images a domain has in a split."""

    @abstractmethod
    def loaded(self, domain: str, split: str, chunks: Sequence[Tensor], device: Any) -> Iterator[Split]:
        """Batches of a domain's split, one after the other.

        Args:
            domain: Which one.
            split: ``"train"``, ``"val"`` or ``"test"``.
            chunks: The indices of each batch.
            device: Where they are wanted.
        """

    def batches(self, seed: int, epoch: int, device: Any, split: str = "train") -> Iterator[Batch]:  # noqa: D102
        sizes = {task.name: self.count(task.name, split) for task in self.tasks}
        smallest = min(sizes, key=lambda domain: sizes[domain])
        if sizes[smallest] < self.batch_size:
            raise IsonomyError(
                f"batch_size={self.batch_size} is more than domain {smallest!r} has for split {split!r}: "
                f"choose at most {sizes[smallest]}."
            )
        steps = max(sizes.values()) // self.batch_size
        streams = {}
        for domain, size in sizes.items():
            chunks = list(islice(self._chunks(domain, size, seed, epoch), steps))
            streams[domain] = _Stream(partial(self._from, domain, split, chunks, device))
        for step in range(steps):
            yield _Step(streams, step)

    def _chunks(self, domain: str, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
        """Whole batches of a domain without end, every turn in another order."""
        for turn in count():
            visited = order(size, key(seed, domain, turn), epoch)
            yield from map(own, torch.split(visited, self.batch_size)[: size // self.batch_size])

    def _from(self, domain: str, split: str, chunks: Sequence[Tensor], device: Any, first: int) -> Iterator[Split]:
        return iter(self.loaded(domain, split, chunks[first:], device))

    def losses(self, model: Callable[..., Any], batch: Batch, tasks: Sequence[str]) -> Losses:  # noqa: D102
        losses, penalties = {}, []
        for task in tasks:
            images, labels = batch[task]
            output = model(images, [task])
            losses[task] = functional.cross_entropy(output.predictions[task], labels)
            if output.penalty is not None:
                penalties.append(output.penalty)
        return Losses(losses, None, reduce(add, penalties) if penalties else None)

    def evaluate(  # noqa: D102
        self, model: nn.Module, tasks: Sequence[str], split: str, thorough: bool = True
    ) -> dict[str, dict[str, float]]:
        from isonomy.bench.metrics import Accuracy  # noqa: PLC0415 - seconds that only training has to spend

        device = next(model.parameters()).device
        values = {}
        for task in tasks:
            accuracy = Accuracy().to(device)
            chunks = torch.split(torch.arange(self.count(task, split)), BLOCK)
            for images, labels in self.loaded(task, split, turns(chunks), device):
                with torch.inference_mode():
                    accuracy.update(model(images, [task]).predictions[task], labels)
            values[task] = {"accuracy": float(accuracy.compute()["accuracy"])}
        return values


class _Stream:
    """A domain's batches of an epoch, by step.

    They are read when somebody asks: a single-task network does not wait for the other domains' images.
    """

    def __init__(self, begin: Callable[[int], Iterator[Split]]) -> None:
        self.begin, self.next = begin, -1
        self.batches: Iterator[Split] = iter(())

    def at(self, step: int) -> Split:
        if step != self.next:
            self.batches = self.begin(step)
        self.next = step + 1
        return next(self.batches)


class _Step(Mapping[str, Split]):
    """The domains' batches of one step."""

    def __init__(self, streams: Mapping[str, _Stream], step: int) -> None:
        self.streams, self.step = streams, step
        self.read: dict[str, Split] = {}

    def __getitem__(self, domain: str) -> Split:
        if domain not in self.read:
            self.read[domain] = self.streams[domain].at(self.step)
        return self.read[domain]

    def __iter__(self) -> Iterator[str]:
        return iter(self.streams)

    def __len__(self) -> int:
        return len(self.streams)
