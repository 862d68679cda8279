"""The data set ``rooms``, in profiles each of which mirrors a data set of the papers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.data import shares
from isonomy.bench.data.dense import ARCHITECTURES, Batch, Dense, DenseTask
from isonomy.bench.data.rooms.cache import ROOMS, Split, cached
from isonomy.bench.data.rooms.profiles import PROFILES, labels, planes
from isonomy.bench.data.rooms.sample import check_size
from isonomy.bench.data.rooms.scene import VERSION
from isonomy.bench.recipe import Recipe
from isonomy.errors import IsonomyError, unknown


@dataclass
class Rooms(Dense):
    """Ray-cast indoor scenes. See ``Problem`` for the members.

    Attributes:
        profile: Which tasks: ``"nyud4"`` (segmentation, depth, normals, edges), ``"nyu3"`` (without edges),
            ``"context5"`` (segmentation, human parts, normals, saliency, edges), ``"city2"`` (coarse segmentation,
            inverse depth), ``"city3"`` (segmentation, the middle of each pixel's object, disparity) or ``"replica3"``
            (as nyu3, with the metrics of the Revisit paper's Table V).
        size: Height and width, from 64 x 64 to 448 x 576.
        train: Training images, and likewise ``val`` and ``test``.
        cameras: Images of every room, each from a camera of its own; 1 for a room an image.
        scans: Of each training room's cameras, those that are used: ``"all"``, a share such as ``"1/4"``, or a number
            such as ``"12"``. What else the split holds is left out, and val and test stay as they are.
        scenes: Likewise of the training rooms.
        steps: Batches an epoch; 0 for one pass over the training images. With a number, less data is not less training.
        noise: Whether training labels are spoilt as in the Revisit paper's Table V.
        batch_size: Images a step.
        flip: Whether half of the training images are mirrored.
    """

    options: ClassVar[tuple[str, ...]] = (
        "profile", "size", "train", "val", "test", "cameras", "scans", "scenes", "noise", "batch_size", "steps", "flip",
    )  # fmt: skip

    name: str = "rooms"
    summary: str = "ray-cast indoor scenes: classes, depth, normals, edges, saliency, parts, instances (generated)"
    version: int = VERSION
    profile: str = "nyud4"
    size: tuple[int, int] = (64, 64)
    train: int = 320
    val: int = 80
    test: int = 160
    cameras: int = 1
    scans: str = shares.ALL
    scenes: str = shares.ALL
    noise: bool = False
    flip: bool = True
    architectures: tuple[str, ...] = ARCHITECTURES
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    recipe: Recipe = Recipe(epochs=20, learning_rate=3e-3, schedule="linear")
    batch_size: int = 16
    steps: int = 0
    tasks: tuple[DenseTask, ...] = field(init=False)
    backbones: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        from isonomy.bench.backbones import CATALOGUE  # noqa: PLC0415

        if self.profile not in PROFILES:
            raise unknown("profile of rooms", self.profile, PROFILES)
        for name in ("cameras", "batch_size", "train", "val", "test"):
            most = ROOMS * self.cameras if name in ("train", "val", "test") else ROOMS
            if not 1 <= getattr(self, name) <= most:
                raise IsonomyError(f"Option {name} of rooms is {getattr(self, name)}: choose from 1 to {most}.")
        if self.steps < 0:
            raise IsonomyError(f"Option steps of rooms is {self.steps}: it must be 0 or more.")
        for name in ("scans", "scenes"):
            shares.check(getattr(self, name), f"Option {name} of rooms")
        if self.scans != shares.ALL and self.cameras == 1:
            raise IsonomyError("Option scans of rooms leaves nothing out of 1 scan a room: set cameras to more.")
        check_size(self.size)
        self.tasks = PROFILES[self.profile]
        self.backbones = ("unet", *(name for name, entry in CATALOGUE.items() if entry.dense and name != "unet"))

    def count(self, split: str) -> int:  # noqa: D102
        return len(self._kept()) if split == "train" else int(getattr(self, split))

    def read(self, split: str, chosen: NDArray[np.int64]) -> Batch:  # noqa: D102
        training = split == "train"
        arrays = _split(split, int(getattr(self, split)), self.size, self.cameras, self.noise and training)
        found = self._kept()[chosen] if training else chosen
        batch = {"image": planes(arrays.image[found]).float() / 255}
        return batch | {task.name: labels(arrays, task.name, found, self.profile) for task in self.tasks}

    def _kept(self) -> NDArray[np.int64]:
        return _kept(self.train, self.cameras, self.scenes, self.scans)


@lru_cache
def _split(split: str, count: int, size: tuple[int, int], cameras: int, noise: bool) -> Split:
    return cached(split, count, size, scans=cameras, noise=noise)


@lru_cache
def _kept(count: int, cameras: int, scenes: str, scans: str) -> NDArray[np.int64]:
    """Which samples are used. Rooms and cameras are drawn at random as it is, so the first ones are taken."""
    room, camera = np.divmod(np.arange(count), cameras)
    few = shares.size(scenes, -(-count // cameras)), shares.size(scans, cameras)
    return np.flatnonzero((room < few[0]) & (camera < few[1]))
