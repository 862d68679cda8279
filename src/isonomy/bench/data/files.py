"""Data sets of image files below a folder that the user has: nothing is downloaded, and what is damaged is named."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isonomy.bench.data.dense import Batch, Dense
from isonomy.bench.data.loading import loaded
from isonomy.bench.data.roots import Layout
from isonomy.bench.seeds import key
from isonomy.errors import IsonomyError, unknown

# Of the training images, those that are kept for validation where the data set has no such split.
VALIDATION = 0.1
# Whether some training images are kept for validation, or none, as papers do that choose the model on the test split.
HONEST, PAPER = "honest", "paper"

Sample = dict[str, Tensor]


class Files(Dense):
    """A data set of image files. See ``Problem`` and ``Dense`` for the members.

    A subclass is a dataclass with ``layout``, ``images`` and the settable attributes ``split`` (where there is no split
    for validation), ``batch_size``, ``augment`` and ``workers``; it says which samples a split has on disk
    (``listed``), how one is read (``sample``) and what becomes of it in training (``transformed``).

    Attributes:
        layout: What the folder has to look like.
        images: How many images each split has in the papers, ``"train"``, ``"test"`` and, if there is one, ``"val"``.
        split: ``"honest"``: a tenth of the training images is for validation, the same ones always; ``"paper"``: all
            are for training, and nothing is for validation.
        augment: Whether training images are changed at random.
        workers: Processes that read ahead; results do not depend on how many.
    """

    layout: ClassVar[Layout]
    images: ClassVar[dict[str, int]]
    options: ClassVar[tuple[str, ...]]
    split: str = HONEST
    augment: bool = True
    workers: int = 0
    flip: bool = False  # ``transformed`` does it, one image at a time

    def __post_init__(self) -> None:
        if self.split not in (HONEST, PAPER):
            raise unknown(f"split of {self.layout.name}", self.split, (HONEST, PAPER))
        # Where it cannot be chosen it is that of the files, which are not looked at before they are needed.
        if "size" in self.options and (len(self.size) != 2 or min(self.size) < 1):
            given = "x".join(map(str, self.size))
            raise IsonomyError(f"Option size of {self.layout.name} is {given}: write a height and a width.")
        if self.batch_size < 1:
            raise IsonomyError(f"Option batch_size of {self.layout.name} is {self.batch_size}: it must be at least 1.")
        if self.workers < 0:
            raise IsonomyError(f"Option workers of {self.layout.name} is {self.workers}: it must be 0 or more.")

    @abstractmethod
    def listed(self, split: str) -> list[str]:
        """The samples of a split on disk, in an order that the file system has no part in.

        Args:
            split: ``"train"``, ``"test"`` or, where the data set has one, ``"val"``.

        Raises:
            IsonomyError: The folder is not the data set's; the expected tree and the first missing path are named.
        """

    @abstractmethod
    def sample(self, split: str, name: str, index: int) -> Sample:
        """A sample as it is on disk.

        Args:
            split: As for ``listed``.
            name: One that it gave.
            index: Its position there, for errors.

        Returns:
            ``"image"``, (3, H, W), float32 in [0, 1], and each task's labels as ``isonomy.bench.data.maps`` has them.

        Raises:
            IsonomyError: A file is missing or damaged; it is named.
        """

    def transformed(self, sample: Sample, draws: torch.Generator) -> Sample:
        """A training sample as it is trained on.

        Args:
            sample: Of any size.
            draws: Where random numbers come from; the sample's own.
        """
        return sample

    def fitted(self, sample: Sample) -> Sample:
        """A sample of exactly ``size``: smaller ones are padded with pixels that are judged by nothing.

        Args:
            sample: As read, or transformed.
        """
        return sample

    @cached_property
    def root(self) -> Path:
        """The data set's folder."""
        return self.layout.root()

    @cached_property
    def _listed(self) -> dict[str, list[str]]:
        """What is on disk, looked up once: there may be a hundred thousand files."""
        return {split: self.listed(split) for split in self.images}

    @cached_property
    def _positions(self) -> dict[str, list[int]]:
        """Of every split's samples, in the split on disk that they are from."""
        positions = {split: list(range(len(names))) for split, names in self._listed.items()}
        if "val" not in positions and self.split == HONEST:
            count = len(positions["train"])
            shuffled = np.random.default_rng(key(self.layout.name, "validation")).permutation(count)
            kept = shuffled[: max(round(VALIDATION * count), 1)].tolist()
            positions["train"] = sorted(set(range(count)).difference(kept))
            positions["val"] = sorted(kept)
        for split, own in positions.items():
            if not own:
                raise self.layout.error(f"there is no image for split {split!r} in {self.root}")
        return positions

    def _on_disk(self, split: str) -> str:
        return "train" if split == "val" and "val" not in self.images else split

    @property
    def samples(self) -> Mapping[str, Sequence[str]]:
        """The names of every split's samples, as they are used."""
        return {
            split: [self._listed[self._on_disk(split)][position] for position in self._positions[split]]
            for split in self.splits
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """In what the splits are not those of the papers."""
        return notes(self.layout.name, {split: len(names) for split, names in self._listed.items()}, self.images)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are."""
        return ("train", "test") if "val" not in self.images and self.split == PAPER else ("train", "val", "test")

    def count(self, split: str) -> int:  # noqa: D102
        return len(self._positions[split])

    def example(self, split: str, index: int) -> Sample:
        """A sample as it is on disk.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            index: Its position in the split.
        """
        on_disk, position = self._on_disk(split), self._positions[split][index]
        return self.sample(on_disk, self._listed[on_disk][position], position)

    def read(self, split: str, chosen: NDArray[np.int64]) -> Batch:  # noqa: D102
        return _stacked([self.fitted(self.example(split, int(index))) for index in chosen])

    def loaded(  # noqa: D102
        self, split: str, chunks: Sequence[NDArray[np.int64]], trained: tuple[int, int] | None = None
    ) -> Iterator[Batch]:
        read = partial(self._prepared, split, trained if self.augment else None)
        yield from loaded(read, [chosen.tolist() for chosen in chunks], self.workers)

    def _prepared(self, split: str, trained: tuple[int, int] | None, index: int) -> Sample:
        """A sample; in training each has draws of its own, so neither order nor processes change it."""
        sample = self.example(split, index)
        if trained is not None:
            seed, epoch = trained
            sample = self.transformed(sample, torch.Generator().manual_seed(key(seed, "augmentation", epoch, index)))
        return self.fitted(sample)


def _stacked(samples: Sequence[Sample]) -> Batch:
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def notes(name: str, found: dict[str, int], usual: dict[str, int]) -> tuple[str, ...]:
    """In what splits are not those of the papers, in sentences.

    Args:
        name: Of the data set.
        found: How many samples each split has.
        usual: How many it has in the papers.
    """
    other = [f"{found[split]} of {count} for {split}" for split, count in usual.items() if found[split] != count]
    return (f"Non-standard split of {name}: {', '.join(other)}.",) if other else ()
