"""Replica's rooms as Omnidata has rendered them, with the three tasks of Table V of the Revisit paper.

Training is InvPT's: 40,000 steps of 4 images with AdamW, here in epochs of 1,000, after each of which the model is
validated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from isonomy.bench.backbones import CATALOGUE
from isonomy.bench.data import decode, maps, noise, shares, transforms, windows
from isonomy.bench.data.dense import ARCHITECTURES, DenseTask
from isonomy.bench.data.files import Files, Sample, notes
from isonomy.bench.data.roots import Layout
from isonomy.bench.losses import l1_normals
from isonomy.bench.recipe import BEST_VAL, Recipe
from isonomy.bench.seeds import key
from isonomy.errors import IsonomyError, unknown

BUILDINGS = {
    "train": (
        "apartment_0", "apartment_1", "frl_apartment_0", "frl_apartment_1", "hotel_0", "office_1", "office_3",
        "office_4", "room_0", "room_2",
    ),
    "val": ("apartment_2", "frl_apartment_2", "frl_apartment_3", "office_0"),
    "test": ("frl_apartment_4", "frl_apartment_5", "office_2", "room_1"),
}  # fmt: skip
EVERY = tuple(building for split in BUILDINGS.values() for building in split)
MODALITIES = ("rgb", "semantic", "depth_zbuffer", "normal", "mask_valid")
# In some packagings masks are called by the name of the depth that they were made of, so the last word is left open.
FILE = re.compile(r"point_(?P<point>\d+)_view_(?P<view>\d+)_domain_(?P<word>\w+)\.png")
# Replica's own list without its first entry, what is undefined.
CLASSES = 101
# Depth's steps in a metre, and what stands for none.
STEPS, NO_DEPTH = 512.0, 65535
# A normal of this grey is none.
GREY = 128
# Of the window by which what is missing grows: a pixel at its rim is a mixture.
RIM = 5
# Stored normals have x to the right, y down and z away from the viewer.
AXES = (1.0, -1.0, -1.0)
# Images at which this is looked at.
LOOKED = 4
# What a scan is, of which the paper's table leaves some out: a point that views look at, or one view.
POINT, VIEW = "point", "view"
UNITS = (POINT, VIEW)
INVPT = "vit_base"
TRIVIAL_DEPTH, FARTHEST = 1.2, 8.0
KINDS = {"seg": transforms.CLASSES, "depth": transforms.DEPTH, "normal": transforms.NORMAL}


@dataclass
class Replica3(Files):
    """Replica rendered by Omnidata: 101 classes, depth, surface normals. See ``Problem`` for the members.

    Attributes:
        size: Height and width of what networks get; images of another size are resized to it.
        batch_size: Images a step.
        steps: Batches an epoch, so that less data is not less training; 0 for one pass over the training images.
        augment: Whether training images are scaled, cropped, mirrored and recoloured.
        workers: Processes that read ahead.
        noise: Whether training labels are spoilt as in the Revisit paper's Table V.
        scans: Of each training building's scans, those that are used: ``"all"``, a share such as ``"1/4"``, or a number
            such as ``"12"``.
        scenes: Likewise of the training buildings.
        unit: What a scan is: ``"point"``, all views of a point, or ``"view"``.
    """

    layout: ClassVar[Layout] = Layout(
        "replica3",
        """\
replica3/
  rgb/replica/BUILDING/point_I_view_J_domain_rgb.png                     RGB
  semantic/replica/BUILDING/point_I_view_J_domain_semantic.png           RGB, the class in R
  depth_zbuffer/replica/BUILDING/point_I_view_J_domain_depth_zbuffer.png uint16, 512 a metre
  normal/replica/BUILDING/point_I_view_J_domain_normal.png               RGB
  mask_valid/replica/BUILDING/point_I_view_J_domain_mask_valid.png       uint8, 0 or 255
or, as older downloads have it, BUILDING/rgb/point_I_view_J_domain_rgb.png and so on""",
        "Omnidata's downloader has it as component replica, after its agreement and Replica's are accepted.",
    )
    images: ClassVar[dict[str, int]] = {"train": 56783, "val": 23725, "test": 23889}
    options: ClassVar[tuple[str, ...]] = (
        "size", "batch_size", "steps", "augment", "workers", "noise", "scans", "scenes", "unit",
    )  # fmt: skip

    name: str = "replica3"
    summary: str = "Replica, rendered by Omnidata: 101 classes, depth, surface normals (your own files)"
    version: int = 1
    size: tuple[int, int] = (512, 512)
    batch_size: int = 4
    steps: int = 1000
    augment: bool = True
    workers: int = 0
    noise: bool = False
    scans: str = shares.ALL
    scenes: str = shares.ALL
    unit: str = POINT
    architectures: tuple[str, ...] = ("invpt", *(name for name in ARCHITECTURES if name != "invpt"))
    backbones: tuple[str, ...] = (INVPT, *sorted({name for name, each in CATALOGUE.items() if each.dense} - {INVPT}))
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    recipe: Recipe = Recipe(40, 2e-5, "poly", optimizer="adamw", weight_decay=1e-6, clip=10.0, select=BEST_VAL)
    tasks: tuple[DenseTask, ...] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0:
            raise IsonomyError(f"Option steps of replica3 is {self.steps}: it must be 0 or more.")
        if self.unit not in UNITS:
            raise unknown("unit of replica3", self.unit, UNITS)
        for name in ("scans", "scenes"):
            shares.check(getattr(self, name), f"Option {name} of replica3")
        self.tasks = (
            maps.classes(CLASSES),
            maps.distance(("RMSE",), TRIVIAL_DEPTH, FARTHEST, "m"),
            maps.normals(loss=l1_normals),
        )

    @cached_property
    def _old(self) -> bool:
        """Whether the packaging is the older one, in which a building's folder has those of the modalities."""
        if any((self.root / building / MODALITIES[0]).is_dir() for building in EVERY):
            return True
        self.layout.require(*(self.root / modality / "replica" for modality in MODALITIES))
        return False

    def _folder(self, building: str, modality: str) -> Path:
        return self.root / (f"{building}/{modality}" if self._old else f"{modality}/replica/{building}")

    @cached_property
    def _views(self) -> dict[str, list[str]]:
        """For each building that is there its images, as ``building/point/view``, all of whose labels are there."""
        found = {}
        for building in EVERY:
            if (images := self._folder(building, MODALITIES[0])).is_dir():
                matches = map(FILE.fullmatch, decode.inside(self.layout, images))
                views = sorted((int(each["point"]), int(each["view"])) for each in matches if each)
                found[building] = [f"{building}/{point}/{view}" for point, view in views]
                for modality in MODALITIES:
                    files = (self._path(name, modality).name for name in found[building])
                    decode.require_all(self.layout, self._folder(building, modality), files)
        return found

    @cached_property
    def _words(self) -> dict[tuple[str, str], str]:
        """What the files in a folder end in."""
        return {}

    def _path(self, name: str, modality: str) -> Path:
        building, point, view = name.split("/")
        folder = self._folder(building, modality)
        if (building, modality) not in self._words:
            matches = map(FILE.fullmatch, sorted(decode.inside(self.layout, folder)))
            self._words[building, modality] = next((each["word"] for each in matches if each), modality)
        return folder / f"point_{point}_view_{view}_domain_{self._words[building, modality]}.png"

    def listed(self, split: str) -> list[str]:  # noqa: D102
        there = [building for building in BUILDINGS[split] if building in self._views]
        if split != "train":
            return [name for building in there for name in self._views[building]]
        scenes = shares.kept(there, self.scenes, "replica3", "scenes")
        return [name for building in scenes for name in self._scans(building)]

    def _scans(self, building: str) -> list[str]:
        names = self._views[building]
        scan = {name: name if self.unit == VIEW else name.rpartition("/")[0] for name in names}
        kept = set(shares.kept(list(dict.fromkeys(scan.values())), self.scans, "replica3", building, self.unit))
        return [name for name in names if scan[name] in kept]

    @property
    def notes(self) -> tuple[str, ...]:
        """In what the files are not those of the papers; what is left out on purpose is not meant."""
        found = {split: sum(len(self._views.get(each, ())) for each in own) for split, own in BUILDINGS.items()}
        return (*notes(self.layout.name, found, self.images), *self._reversed())

    def _reversed(self) -> Iterator[str]:
        """A sentence, if normals seem to be stored otherwise than ``AXES`` has it: no surface is seen from behind."""
        height, width = (slice(3 * side // 8, 5 * side // 8) for side in self.size)
        looked = [self.read("test", np.array([i]))["normal"] for i in range(min(LOOKED, self.count("test")))]
        # In the middle, where surfaces that are seen have z > 0; further out those that are nearly edge-on need not.
        away = [bool(normal[:, 2, height, width].sum() < 0) for normal in looked]
        if 2 * sum(away) > len(away):
            yield (
                f"In {sum(away)} of {len(away)} images surfaces face away from the camera: these normals have other "
                f"axes than Omnidata's. Pictures of them are wrong, numbers are not."
            )

    def sample(self, split: str, name: str, index: int) -> Sample:  # noqa: D102
        image = decode.image(self._path(name, "rgb"), index)
        size = (image.shape[1], image.shape[2])
        there = _valid(self._path(name, "mask_valid"), index, size)
        label = np.where(there, _classes(self._path(name, "semantic"), index, size), maps.IGNORED)
        depth = np.where(there[..., None], _depth(self._path(name, "depth_zbuffer"), index, size), 0)
        normal = np.where(there[..., None], _normals(self._path(name, "normal"), index, size), 0)
        if self.noise and split == "train":
            generator = np.random.default_rng(key("replica3", "noise", name))
            label, depth, normal = noise.spoilt(label, depth, normal, CLASSES, generator)
        seg = torch.from_numpy(label.astype(np.int64))
        return {"image": image, "seg": seg, "depth": decode.planes(depth), "normal": decode.planes(normal)}

    def transformed(self, sample: Sample, draws: torch.Generator) -> Sample:  # noqa: D102
        whole = transforms.resized(sample, KINDS, self.size)
        return windows.centred(windows.augmented(whole, KINDS, draws, self.size), KINDS, self.size)

    def fitted(self, sample: Sample) -> Sample:  # noqa: D102
        return transforms.resized(sample, KINDS, self.size)


def _valid(path: Path, index: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where there is geometry, and all around."""
    with decode.reading(path, index):
        lost = torch.from_numpy(decode.within(decode.picture(path, size), (0, 255)) == 0)
    grown: NDArray[np.bool_] = functional.max_pool2d(lost[None].float(), RIM, 1, RIM // 2)[0].numpy() == 0
    return grown


def _classes(path: Path, index: int, size: tuple[int, int]) -> NDArray[np.int16]:
    with decode.reading(path, index):
        classes = decode.within(decode.picture(path, size, channels=3)[..., 0], range(CLASSES + 1))
    return (classes - 1).astype(np.int16)


def _depth(path: Path, index: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Metres, (H, W, 1)."""
    with decode.reading(path, index):
        raw = decode.wide(decode.picture(path, size)).astype(np.int64)[..., None]
    return np.where(raw == NO_DEPTH, 0, raw / STEPS).astype(np.float32)


def _normals(path: Path, index: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Unit vectors (H, W, 3), x to the right, y up, z towards the viewer."""
    with decode.reading(path, index):
        raw = decode.picture(path, size, channels=3)
        vectors = decode.from_bytes(raw) * AXES
        length = np.linalg.norm(vectors, axis=-1, keepdims=True)
        valid = (raw != GREY).any(axis=-1, keepdims=True) & (length > 0)
        return np.where(valid, vectors / np.where(valid, length, 1), 0).astype(np.float32)
