"""The data set ``nyuv2``: NYUv2 with 13 classes, depth and surface normals, as MTAN's authors packed it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from isonomy.bench.data import decode, maps, transforms
from isonomy.bench.data.dense import ARCHITECTURES, DenseTask
from isonomy.bench.data.files import HONEST, Sample
from isonomy.bench.data.packed import BACKBONES, FOLDERS, PLAIN, RECIPE, Packed
from isonomy.bench.data.roots import Layout
from isonomy.bench.recipe import Recipe
from isonomy.errors import unknown

CLASSES = 13
MTAN = "mtan"
# Always predicting one number costs about as much; pictures are bright at this many metres.
TRIVIAL_DEPTH, FARTHEST = 1.0, 10.0
DBMTL, IMTL = "dbmtl", "imtl"
# What DB-MTL's tables show, and IMTL's.
METRICS: dict[str, tuple[DenseTask, ...]] = {
    DBMTL: (
        maps.classes(CLASSES, ("mIoU", "PAcc")),
        maps.distance(("AErr", "RErr"), TRIVIAL_DEPTH, FARTHEST, "m"),
        maps.normals(maps.ANGLES),
    ),
    IMTL: (
        maps.classes(CLASSES),
        maps.distance(("AErr",), TRIVIAL_DEPTH, FARTHEST, "m"),
        maps.normals(maps.COSINE),
    ),
}


@dataclass
class Nyuv2(Packed):
    """NYUv2 with three tasks. See ``Problem`` for the members, ``Files`` and ``Packed`` for the options.

    Attributes:
        metrics: Which ones: those of DB-MTL's tables (``"dbmtl"``) or of IMTL's (``"imtl"``).
        compat: ``"mtan"``: as in MTAN's code and its followers', a normal is valid where its components do not add up
            to 0, which some true ones do, and augmented normals are interpolated as plain numbers.
    """

    options: ClassVar[tuple[str, ...]] = ("split", "batch_size", "augment", "workers", "metrics", "compat")
    layout: ClassVar[Layout] = Layout(
        "nyuv2",
        """\
nyuv2/
  train/                  795 of each; 0.npy, 1.npy, ...
    image/NUMBER.npy      (288, 384, 3), RGB in [0, 1]
    label/NUMBER.npy      (288, 384), 0 to 12, -1: none
    depth/NUMBER.npy      (288, 384, 1), metres, 0: none
    normal/NUMBER.npy     (288, 384, 3), unit vectors, 0: none
  val/                    the same, 654 of each: the test split""",
        "It is linked from the page of the project MTAN, as the pre-processed NYUv2.",
    )
    images: ClassVar[dict[str, int]] = {"train": 795, "test": 654}
    fields: ClassVar[tuple[str, ...]] = ("image", "label", "depth", "normal")
    classes: ClassVar[int] = CLASSES
    compats: ClassVar[tuple[str, ...]] = (PLAIN, MTAN)

    name: str = "nyuv2"
    summary: str = "NYUv2: 13 classes, depth, surface normals (your own files)"
    version: int = 1
    split: str = HONEST
    batch_size: int = 8
    augment: bool = False
    workers: int = 0
    metrics: str = DBMTL
    compat: str = PLAIN
    architectures: tuple[str, ...] = ARCHITECTURES
    backbones: tuple[str, ...] = BACKBONES
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    recipe: Recipe = RECIPE
    tasks: tuple[DenseTask, ...] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metrics not in METRICS:
            raise unknown(f"metrics of {self.layout.name}", self.metrics, METRICS)
        self.tasks = METRICS[self.metrics]

    @property
    def kinds(self) -> transforms.Kinds:  # noqa: D102
        normal = transforms.RAW_NORMAL if self.compat == MTAN else transforms.SMOOTH_NORMAL
        return {"seg": transforms.CLASSES, "depth": transforms.DEPTH, "normal": normal}

    def sample(self, split: str, name: str, index: int) -> Sample:  # noqa: D102
        return {**super().sample(split, name, index), "normal": self._normals(split, name, index)}

    def _normals(self, split: str, name: str, index: int) -> Tensor:
        path = self.root / FOLDERS[split] / "normal" / f"{name}.npy"
        with decode.reading(path, index):
            values = decode.numbers(path, self.size, channels=3)
            return decode.planes(values) if self.compat == MTAN else decode.directions(values)

    def fitted(self, sample: Sample) -> Sample:  # noqa: D102
        if self.compat != MTAN:
            return sample
        normal = sample["normal"]
        return {**sample, "normal": torch.where(normal.sum(0) != 0, normal, 0)}
