"""The data set ``pascal5``: PASCAL-Context with 21 classes, human parts, surface normals, saliency and edges."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import laplace  # type: ignore[import-untyped]
from torch import Tensor

from isonomy.bench.backbones import CATALOGUE
from isonomy.bench.data import decode, maps, pascal_parts, transforms, windows
from isonomy.bench.data.dense import ARCHITECTURES, DenseTask
from isonomy.bench.data.files import HONEST, Files, Sample
from isonomy.bench.data.nyud4 import COMPAT, INVPT, PLAIN, SHORTEST
from isonomy.bench.data.pascal_indoors import INDOORS
from isonomy.bench.data.roots import Layout
from isonomy.bench.losses import l1_normals
from isonomy.bench.recipe import BEST_VAL, Recipe
from isonomy.errors import unknown

CLASSES, NO_CLASS = 21, 255
# Human parts are merged so that the two sides are one: mirroring them changes no label.
KINDS = {
    "seg": transforms.CLASSES,
    "parts": transforms.CLASSES,
    "normal": transforms.NORMAL,
    "sal": transforms.MASK,
    "edge": transforms.MASK,
}
# Where a class map is looked for, the first first.
SEGMENTATIONS = ("VOC12", "pascal-context")
FOLDERS = {
    "JPEGImages": ".jpg",
    "pascal-context/trainval": ".mat",
    "human_parts": ".mat",
    "normals_distill": ".png",
    "sal_distill": ".png",
}


@dataclass
class Pascal5(Files):
    """PASCAL-Context as ASTMT has released it; normals and saliency are what other networks have found.

    Edges lie between the categories of PASCAL-Context. They are trained, and validated, on lines of one pixel where the
    Laplacian of the category's number is not 0; on the test split the truth is that of SEISM, the pixels that differ
    from a right or lower neighbour, which the metric makes thin.

    Attributes:
        compat: ``"invpt"``: saliency is judged, and nearly zero normals are taken for normals, as in InvPT's code.
    """

    options: ClassVar[tuple[str, ...]] = ("size", "split", "batch_size", "augment", "workers", "compat")
    layout: ClassVar[Layout] = Layout(
        "pascal5",
        """\
pascal5/
  ImageSets/Context/train.txt, val.txt   names of images, one a line; val is the test split
  JPEGImages/NAME.jpg
  pascal-context/trainval/NAME.mat       LabelMap: one of 459 categories a pixel
  semseg/VOC12/NAME.png                  0 to 20, 255: none; where there is no such file,
  semseg/pascal-context/NAME.png         this one
  human_parts/NAME.mat                   anno: objects with the masks of their parts
  normals_distill/NAME.png               0 to 255 for -1 to 1
  sal_distill/NAME.png                   0 to 255, salient above one half""",
        "It is linked from the pages of the projects ASTMT, ATRC and InvPT, as PASCAL_MT or PASCALContext.",
    )
    images: ClassVar[dict[str, int]] = {"train": 4998, "test": 5105}

    name: str = "pascal5"
    summary: str = "PASCAL-Context: 21 classes, human parts, surface normals, saliency, edges (your own files)"
    version: int = 1
    size: tuple[int, int] = (512, 512)
    split: str = HONEST
    batch_size: int = 6
    augment: bool = True
    workers: int = 0
    compat: str = PLAIN
    architectures: tuple[str, ...] = ARCHITECTURES
    backbones: tuple[str, ...] = tuple(name for name, entry in CATALOGUE.items() if entry.dense)
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    recipe: Recipe = Recipe(60, 1e-4, "poly", weight_decay=1e-4, select=BEST_VAL)
    tasks: tuple[DenseTask, ...] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat not in COMPAT:
            raise unknown(f"value of compat of {self.layout.name}", self.compat, COMPAT)
        saliency = maps.saliency()
        if self.compat == INVPT:
            saliency = replace(saliency, judge=maps.judge("Saliency", compat=INVPT))
        self.tasks = (
            maps.classes(CLASSES),
            maps.classes(pascal_parts.COUNT, name="parts"),
            maps.normals(loss=l1_normals),
            saliency,
            maps.edges(thresholds=101, tolerance=0.0075),
        )

    def listed(self, split: str) -> list[str]:  # noqa: D102
        found = decode.named(self.layout, self.root / "ImageSets" / "Context", split)
        for folder, ending in FOLDERS.items():
            decode.require_all(self.layout, self.root / folder, (name + ending for name in found))
        first, second = (self.root / "semseg" / folder for folder in SEGMENTATIONS)
        own = decode.inside(self.layout, first) if first.exists() else set()
        if rest := [file for file in (f"{name}.png" for name in found) if file not in own]:
            decode.require_all(self.layout, second, rest)
        return found

    def sample(self, split: str, name: str, index: int) -> Sample:  # noqa: D102
        image = decode.image(self.root / "JPEGImages" / f"{name}.jpg", index)
        size = (image.shape[1], image.shape[2])
        categories = pascal_parts.label_map(self.root / "pascal-context" / "trainval" / f"{name}.mat", index, size)
        people = pascal_parts.parts(self.root / "human_parts" / f"{name}.mat", index, size)
        edges = (boundaries if split == "test" else lines)(categories)
        return {
            "image": image,
            "seg": self._classes(name, index, size),
            "parts": torch.from_numpy(people.astype(np.int64)),
            "normal": self._normals(name, index, categories),
            "sal": self._saliency(name, index, size),
            "edge": torch.from_numpy(edges.astype(np.int64)),
        }

    def _classes(self, name: str, index: int, size: tuple[int, int]) -> Tensor:
        places = [self.root / "semseg" / folder / f"{name}.png" for folder in SEGMENTATIONS]
        path = next((place for place in places if place.exists()), places[-1])
        with decode.reading(path, index):
            found = torch.from_numpy(decode.within(decode.picture(path, size), (*range(CLASSES), NO_CLASS)))
            return found.masked_fill(found == NO_CLASS, maps.IGNORED)

    def _normals(self, name: str, index: int, categories: NDArray[np.int64]) -> Tensor:
        path = self.root / "normals_distill" / f"{name}.png"
        height, width = categories.shape
        with decode.reading(path, index):
            vectors = decode.from_bytes(decode.picture(path, (height, width), channels=3))
            vectors[~np.isin(categories, list(INDOORS.values()))] = 0
            return decode.directions(vectors, 0.0 if self.compat == INVPT else SHORTEST)

    def _saliency(self, name: str, index: int, size: tuple[int, int]) -> Tensor:
        path = self.root / "sal_distill" / f"{name}.png"
        with decode.reading(path, index):
            share = decode.within(decode.picture(path, size), range(256)) / 255
            return torch.from_numpy((share > 0.5).astype(np.int64))

    def transformed(self, sample: Sample, draws: torch.Generator) -> Sample:  # noqa: D102
        return windows.augmented(sample, KINDS, draws, self.size)

    def fitted(self, sample: Sample) -> Sample:  # noqa: D102
        whole = windows.centred(sample, KINDS, self.size)
        # Also of a window beside the people.
        return {**whole, "parts": maps.without_people(whole["parts"])}


def lines(categories: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The edges that networks are trained on: where the Laplacian is not 0, made thin.

    Args:
        categories: Shape (H, W).
    """
    from isonomy.bench.metrics.contours import thin  # noqa: PLC0415 - with torchmetrics, which takes a second

    # The image is mirrored about its outermost pixels, as OpenCV does it.
    differing = laplace(categories, mode="mirror") != 0
    found: NDArray[np.bool_] = thin(differing[None])[0]
    return found


def boundaries(categories: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The edges that networks are judged by, before they are made thin.

    Args:
        categories: Shape (H, W).
    """
    from isonomy.bench.metrics.contours import boundary_map  # noqa: PLC0415 - see above

    return boundary_map(categories)
