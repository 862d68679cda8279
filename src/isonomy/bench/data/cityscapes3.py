"""Cityscapes as its makers release it, with the three tasks of IMTL: segmentation, instances and disparity.

IMTL's crop, budget and schedule are not known. Training is that of the nearest public code, ``cityscapes_pspnet`` of
SamsungLabs/MTL: images of 256 x 512, turned by up to 10 degrees and mirrored, for 60 epochs of Adam whose rate is
multiplied by 0.7 after every third epoch from the 42nd on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from isonomy.bench.backbones import CATALOGUE
from isonomy.bench.data import decode, maps, transforms
from isonomy.bench.data.dense import ARCHITECTURES, DenseTask
from isonomy.bench.data.files import HONEST, Files, Sample
from isonomy.bench.data.offsets import offsets
from isonomy.bench.data.roots import Layout
from isonomy.bench.recipe import BEST_VAL, Recipe
from isonomy.errors import IsonomyError

# The ids in the files of the 19 classes that are judged, in the benchmark's order: road, sidewalk, building, wall,
# fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, rider, car, truck, bus, train, motorcycle,
# bicycle. Whatever else there is has no label.
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# Of these the ones that are counted; an object is 1000 times its id and a number, a group of them the id alone.
THINGS = (24, 25, 26, 27, 28, 31, 32, 33)
PER_ID = 1000
# As 8 bits hold the id -1, which number plates have.
NO_ID = 255
# Disparities are stored in steps, from 1 for none on; 0 is where none was found.
STEPS = 256.0
FULL = (1024, 2048)
TURN = 10.0
# PSPNet whose pyramid is shared, too: heads then read one feature, at which IMTL balances.
PSPNET = "resnet50_pyramid"
# In pixels of full images: what always predicting one number costs, about, and where the colours of pictures end.
TRIVIAL_OFFSET, TRIVIAL_DISPARITY = 50.0, 15.0
FAR_OFFSET, FAR_DISPARITY = 256.0, 128.0

# What a sample's files are called: folder, and the end of the name.
PARTS = {
    "image": ("leftImg8bit", "leftImg8bit"),
    "seg": ("gtFine", "gtFine_labelIds"),
    "ins": ("gtFine", "gtFine_instanceIds"),
    "disp": ("disparity", "disparity"),
}
KINDS = {"seg": transforms.CLASSES, "ins": transforms.OFFSETS, "disp": transforms.DISPARITY}
# The folder of each split: the papers test on the images that the release calls "val".
FOLDERS = {"train": "train", "test": "val"}


@dataclass
class Cityscapes3(Files):
    """Cityscapes: 19 classes, the middle of each pixel's object, disparity. See ``Problem`` for the members.

    Attributes:
        size: Height and width to which images and labels are resized. Offsets and disparity are in pixels of that size.
        split: ``"honest"``: a tenth of the training images is for validation; ``"paper"``: none is.
        batch_size: Images a step.
        augment: Whether training images are turned and mirrored.
        workers: Processes that read ahead.
    """

    layout: ClassVar[Layout] = Layout(
        "cityscapes3",
        """\
cityscapes3/
  leftImg8bit/{train,val}/<city>/<city>_<seq>_<frame>_leftImg8bit.png       RGB, 1024 x 2048
  gtFine/{train,val}/<city>/<city>_<seq>_<frame>_gtFine_labelIds.png        uint8, 0 to 33
  gtFine/{train,val}/<city>/<city>_<seq>_<frame>_gtFine_instanceIds.png     uint16
  disparity/{train,val}/<city>/<city>_<seq>_<frame>_disparity.png           uint16""",
        "Three archives of cityscapes-dataset.com are needed (leftImg8bit, gtFine and disparity, trainvaltest); "
        "registration is for research.",
    )
    images: ClassVar[dict[str, int]] = {"train": 2975, "test": 500}
    options: ClassVar[tuple[str, ...]] = ("size", "split", "batch_size", "augment", "workers")

    name: str = "cityscapes3"
    summary: str = "Cityscapes, official release: segmentation of 19 classes, instances, disparity (IMTL)"
    version: int = 1
    size: tuple[int, int] = (256, 512)
    split: str = HONEST
    batch_size: int = 8
    augment: bool = True
    workers: int = 0
    architectures: tuple[str, ...] = ARCHITECTURES
    backbones: tuple[str, ...] = (PSPNET, *sorted({name for name, each in CATALOGUE.items() if each.dense} - {PSPNET}))
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    recipe: Recipe = Recipe(epochs=60, learning_rate=1e-4, schedule="step:first=39,every=3,factor=0.7", select=BEST_VAL)
    tasks: tuple[DenseTask, ...] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.size) != 2 or not all(8 <= own <= most for own, most in zip(self.size, FULL, strict=True)):
            raise IsonomyError(
                f"Option size of cityscapes3 is {'x'.join(map(str, self.size))}: choose a height and a width from 8x8 "
                f"to 1024x2048."
            )
        shrunk = self.size[1] / FULL[1]
        self.tasks = (
            maps.classes(len(IDS)),
            maps.middles(TRIVIAL_OFFSET * shrunk, FAR_OFFSET * shrunk),
            maps.disparity(TRIVIAL_DISPARITY * shrunk, FAR_DISPARITY * shrunk),
        )

    @cached_property
    def _listed(self) -> dict[str, list[str]]:
        self.layout.require(*(self._folder(split, part) for part in ("image", "seg", "disp") for split in FOLDERS))
        return {split: self._complete(split) for split in FOLDERS}

    def listed(self, split: str) -> list[str]:  # noqa: D102
        return self._listed[split]

    def _complete(self, split: str) -> list[str]:
        """A split's images, as ``city/stem``; each of them has all of its labels."""
        ends = {part: f"_{end}.png" for part, (_, end) in PARTS.items()}
        every = self._folder(split, "image").glob(f"*/*{ends['image']}")
        # macOS puts hidden files of the same ending beside others.
        found = sorted(path for path in every if not path.name.startswith("."))
        names = [f"{path.parent.name}/{path.name.removesuffix(ends['image'])}" for path in found]
        for city, inside in groupby(names, lambda name: name.partition("/")[0]):
            stems = [name.partition("/")[2] for name in inside]
            for part in ("seg", "ins", "disp"):
                decode.require_all(self.layout, self._folder(split, part) / city, (stem + ends[part] for stem in stems))
        return names

    def _folder(self, split: str, part: str) -> Path:
        return self.root / PARTS[part][0] / FOLDERS[split]

    def _path(self, split: str, name: str, part: str) -> Path:
        return self._folder(split, part) / f"{name}_{PARTS[part][1]}.png"

    @property
    def notes(self) -> tuple[str, ...]:
        """In what the splits and the pixels are not those of the papers."""
        if self.size == FULL:
            return super().notes
        height, width = self.size
        units = f"Offsets and disparity are in pixels of images of {height} x {width}; the papers' are of 1024 x 2048."
        return (*super().notes, units)

    def sample(self, split: str, name: str, index: int) -> Sample:
        """A sample, at ``size``, as networks get it; see ``Files``."""
        path = partial(self._path, split, name)
        image = decode.image(path("image"), index)
        full = (image.shape[1], image.shape[2])
        labels = {
            "seg": _classes(path("seg"), index, full),
            "ins": _objects(path("ins"), index, full),
            "disp": _disparity(path("disp"), index, full),
        }
        # Middles are those of what is left of an object at this size.
        found = transforms.resized(labels, {**KINDS, "ins": transforms.CLASSES}, self.size)
        found["ins"] = offsets(found["ins"])
        return {"image": _shrunk(image, self.size), **found}

    def transformed(self, sample: Sample, draws: torch.Generator) -> Sample:  # noqa: D102
        turn, mirror = torch.rand(2, generator=draws).tolist()
        turned = transforms.rotated(sample, KINDS, TURN * (2 * turn - 1))
        return transforms.flipped(turned, KINDS) if mirror < 0.5 else turned


def _classes(path: Path, index: int, size: tuple[int, int]) -> Tensor:
    classes = torch.full((256,), maps.IGNORED)
    classes[list(IDS)] = torch.arange(len(IDS))
    with decode.reading(path, index):
        return classes[decode.within(decode.picture(path, size), (*range(IDS[-1] + 1), NO_ID))]


def _objects(path: Path, index: int, size: tuple[int, int]) -> Tensor:
    with decode.reading(path, index):
        instances = torch.from_numpy(decode.wide(decode.picture(path, size)).astype(np.int64))
        if (last := int(instances.max())) >= PER_ID * (IDS[-1] + 1):
            raise ValueError(f"it holds {last}, which is no instance")
    return torch.where(torch.isin(instances // PER_ID, torch.tensor(THINGS)), instances, -1)


def _disparity(path: Path, index: int, size: tuple[int, int]) -> Tensor:
    with decode.reading(path, index):
        raw = decode.planes(decode.wide(decode.picture(path, size))[..., None])
    return torch.where(raw > 0, (raw - 1) / STEPS, torch.nan)


def _shrunk(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Each pixel an average of what it covers, so that thin things stay."""
    if image.shape[1:] == size:
        return image
    return functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
