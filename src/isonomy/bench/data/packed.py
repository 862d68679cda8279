"""Data sets in MTAN's packaging: a folder for every split and field, with a numbered ``.npy`` file for every image."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from isonomy.bench.backbones import CATALOGUE
from isonomy.bench.data import decode, maps
from isonomy.bench.data.files import Files, Sample
from isonomy.bench.data.transforms import Kinds, scale_crop_flip
from isonomy.bench.recipe import BEST_VAL, Recipe
from isonomy.errors import unknown

# The folder called val is what papers report on.
FOLDERS = {"train": "train", "test": "val"}
PLAIN = "none"
# Of DB-MTL's Tables 1 and 2.
RECIPE = Recipe(200, 1e-4, "step:every=100,factor=0.5", weight_decay=1e-5, select=BEST_VAL)
BACKBONES = ("resnet50", *(name for name, entry in CATALOGUE.items() if entry.dense and name != "resnet50"))


class Packed(Files):
    """A data set in MTAN's packaging, without a split for validation. See ``Files`` for the members.

    Images are trained on as they are unless ``augment`` is set: then on a window of 1, 1 / 1.2 or 1 / 1.5 of the size,
    enlarged to the whole, half of them mirrored.

    Attributes:
        fields: Folders below a split's, ``"image"`` and ``"label"`` the first.
        classes: How many there are.
        advice: Where labels of other classes may come from, a sentence.
        compats: Whose code's mistakes can be had.
        compat: Whose are, of those.
    """

    fields: ClassVar[tuple[str, ...]]
    classes: ClassVar[int]
    advice: ClassVar[str] = ""
    compats: ClassVar[tuple[str, ...]]
    compat: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat not in self.compats:
            raise unknown(f"value of compat of {self.layout.name}", self.compat, self.compats)

    @property
    @abstractmethod
    def kinds(self) -> Kinds:
        """What the augmentation does to each label."""

    def listed(self, split: str) -> list[str]:  # noqa: D102
        folder = self.root / FOLDERS[split]
        self.layout.require(folder, *(folder / field for field in self.fields))
        names = [Path(name) for field in self.fields for name in decode.inside(self.layout, folder / field)]
        found = sorted({int(name.stem) for name in names if name.suffix == ".npy" and name.stem.isdecimal()})
        if not found:
            self.layout.require(folder / self.fields[0] / "0.npy")
        for field in self.fields:
            decode.require_all(self.layout, folder / field, (f"{number}.npy" for number in found))
        return [str(number) for number in found]

    @cached_property
    def size(self) -> tuple[int, int]:  # type: ignore[override]
        """Height and width: the first image's, which all others have to have."""
        path = self.root / "train" / "image" / f"{self.samples['train'][0]}.npy"
        with decode.reading(path, 0):
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            if len(shape) != 3 or shape[2] != 3:
                raise ValueError(f"its shape is {shape}, an image's is (height, width, 3)")
        return int(shape[0]), int(shape[1])

    def sample(self, split: str, name: str, index: int) -> Sample:  # noqa: D102
        return {
            "image": self._image(split, name, index),
            "seg": self._classes(split, name, index),
            "depth": self._depth(split, name, index),
        }

    def _image(self, split: str, name: str, index: int) -> Tensor:
        path = self.root / FOLDERS[split] / "image" / f"{name}.npy"
        with decode.reading(path, index):
            values = decode.numbers(path, self.size, channels=3)
            # Interpolation may have gone beyond a little; other units go far beyond.
            if values.min() < -0.5 or values.max() > 1.5:
                raise ValueError(f"its values go from {values.min():g} to {values.max():g}, an image's from 0 to 1")
            return decode.planes(values)

    def _classes(self, split: str, name: str, index: int) -> Tensor:
        path = self.root / FOLDERS[split] / "label" / f"{name}.npy"
        with decode.reading(path, index):
            values = decode.numbers(path, self.size)
            try:
                return torch.from_numpy(decode.within(values, range(maps.IGNORED, self.classes)))
            except ValueError as error:
                raise ValueError(f"{error}{self.advice}") from error

    def _depth(self, split: str, name: str, index: int) -> Tensor:
        path = self.root / FOLDERS[split] / "depth" / f"{name}.npy"
        with decode.reading(path, index):
            values = decode.numbers(path, self.size)
            if values.min() < 0:
                raise ValueError(f"its smallest value is {values.min():g}, and 0 is for none")
            return decode.planes(values[..., None])

    def transformed(self, sample: Sample, draws: torch.Generator) -> Sample:  # noqa: D102
        return scale_crop_flip(sample, self.kinds, draws)
