"""The data set ``nyud4``: NYUD-v2 with 40 classes, depth, surface normals and edges."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from isonomy.bench.backbones import CATALOGUE
from isonomy.bench.data import decode, maps, transforms, windows
from isonomy.bench.data.dense import ARCHITECTURES, DenseTask
from isonomy.bench.data.files import HONEST, Files, Sample
from isonomy.bench.data.roots import Layout
from isonomy.bench.losses import l1_normals
from isonomy.bench.recipe import BEST_VAL, Recipe
from isonomy.errors import unknown

CLASSES = 40
# A shorter normal is none: 8 bits have no zero, what is nearest to it is 0.007 long.
SHORTEST = 0.05
PLAIN, INVPT = "none", "invpt"
COMPAT = (PLAIN, INVPT)
# Always predicting one number costs about as much; pictures are bright at this many metres.
TRIVIAL_DEPTH, FARTHEST = 1.2, 10.0
KINDS = {
    "seg": transforms.CLASSES,
    "depth": transforms.DEPTH,
    "normal": transforms.NORMAL,
    "edge": transforms.MASK,
}
# The files of normals and edges that belong to each of images, in the two packagings that there are.
PACKAGINGS = {".png": ".png", ".jpg": ".npy"}


@dataclass
class Nyud4(Files):
    """NYUD-v2 in the packaging of InvPT (all pictures ``.png``) or of ATRC and MTL-PyTorch (``.jpg`` and ``.npy``).

    Attributes:
        compat: ``"invpt"``: in pictures of normals every pixel is a normal, as InvPT's code has it, even those of a
            length near zero, which 8 bits have instead of zero.
    """

    options: ClassVar[tuple[str, ...]] = ("size", "split", "batch_size", "augment", "workers", "compat")
    layout: ClassVar[Layout] = Layout(
        "nyud4",
        """\
nyud4/
  gt_sets/train.txt, val.txt   names of images, one a line, without their endings; val is the test split
  images/NAME.png              or .jpg, and then normals and edges are .npy
  segmentation/NAME.png        0: none, 1 to 40
  depth/NAME.npy               metres, 0: none
  normals/NAME.png             0 to 255 for -1 to 1; or .npy, -1 to 1, 0: none
  edge/NAME.png                0 and 255; or .npy, 0 and 1""",
        "It is linked from the pages of the projects ATRC and InvPT (Multi-Task-Transformer), as NYUD_MT or NYUDv2.",
    )
    images: ClassVar[dict[str, int]] = {"train": 795, "test": 654}

    name: str = "nyud4"
    summary: str = "NYUD-v2: 40 classes, depth, surface normals, edges (your own files)"
    version: int = 1
    size: tuple[int, int] = (448, 576)
    split: str = HONEST
    batch_size: int = 6
    augment: bool = True
    workers: int = 0
    compat: str = PLAIN
    architectures: tuple[str, ...] = ARCHITECTURES
    backbones: tuple[str, ...] = tuple(name for name, entry in CATALOGUE.items() if entry.dense)
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    recipe: Recipe = Recipe(100, 1e-4, "poly", weight_decay=1e-4, select=BEST_VAL)
    tasks: tuple[DenseTask, ...] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat not in COMPAT:
            raise unknown(f"value of compat of {self.layout.name}", self.compat, COMPAT)
        self.tasks = (
            maps.classes(CLASSES),
            maps.distance(("RMSE",), TRIVIAL_DEPTH, FARTHEST, "m"),
            maps.normals(loss=l1_normals),
            maps.edges(thresholds=101, tolerance=0.011, convert=True),
        )

    def listed(self, split: str) -> list[str]:  # noqa: D102
        found = decode.named(self.layout, self.root / "gt_sets", split)
        image, label = self._endings
        for folder, ending in (
            ("images", image), ("segmentation", ".png"), ("depth", ".npy"), ("normals", label), ("edge", label),
        ):  # fmt: skip
            decode.require_all(self.layout, self.root / folder, (name + ending for name in found))
        return found

    @cached_property
    def _endings(self) -> tuple[str, str]:
        """Of images, and of normals and edges: the first image tells."""
        folder = self.root / "images"
        endings = (Path(name).suffix for name in sorted(decode.inside(self.layout, folder)))
        first = next((ending for ending in endings if ending in PACKAGINGS), ".png")
        return first, PACKAGINGS[first]

    def sample(self, split: str, name: str, index: int) -> Sample:  # noqa: D102
        image_ending, label_ending = self._endings
        image = decode.image(self.root / "images" / (name + image_ending), index)
        size = (image.shape[1], image.shape[2])
        return {
            "image": image,
            "seg": self._classes(name, index, size),
            "depth": self._depth(name, index, size),
            "normal": self._normals(name + label_ending, index, size),
            "edge": self._edges(name + label_ending, index, size),
        }

    def _classes(self, name: str, index: int, size: tuple[int, int]) -> Tensor:
        path = self.root / "segmentation" / f"{name}.png"
        with decode.reading(path, index):
            return torch.from_numpy(decode.within(decode.picture(path, size), range(CLASSES + 1))) - 1

    def _depth(self, name: str, index: int, size: tuple[int, int]) -> Tensor:
        path = self.root / "depth" / f"{name}.npy"
        with decode.reading(path, index):
            metres = decode.numbers(path, size)
            if metres.min() < 0:
                raise ValueError(f"a depth is {metres.min():g}")
            return decode.planes(metres[..., None])

    def _normals(self, file: str, index: int, size: tuple[int, int]) -> Tensor:
        path = self.root / "normals" / file
        with decode.reading(path, index):
            if path.suffix == ".npy":
                return decode.directions(decode.numbers(path, size, channels=3), SHORTEST)
            vectors = decode.from_bytes(decode.picture(path, size, channels=3))
            return decode.directions(vectors, 0.0 if self.compat == INVPT else SHORTEST)

    def _edges(self, file: str, index: int, size: tuple[int, int]) -> Tensor:
        path = self.root / "edge" / file
        with decode.reading(path, index):
            if path.suffix == ".npy":
                return torch.from_numpy(decode.within(decode.numbers(path, size), (0, 1)))
            return torch.from_numpy(decode.within(decode.picture(path, size), (0, 255))) // 255

    def transformed(self, sample: Sample, draws: torch.Generator) -> Sample:  # noqa: D102
        return windows.augmented(sample, KINDS, draws, self.size)

    def fitted(self, sample: Sample) -> Sample:  # noqa: D102
        return windows.centred(sample, KINDS, self.size)
