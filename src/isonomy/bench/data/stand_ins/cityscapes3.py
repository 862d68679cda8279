"""Rooms in the files of ``cityscapes3``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isonomy.bench.data.rooms.cache import locate
from isonomy.bench.data.rooms.sample import Sample
from isonomy.bench.data.rooms.scene import SHELL
from isonomy.bench.data.stand_ins.enlarged import room

NATIVE = (1024, 2048)
# What stands for the rooms' classes (bed, books, ceiling, chair, floor, furniture, objects, picture, sofa, table, tv,
# wall, window; the last entry is for what has no label, -1): a bed is a car, a sofa a truck, a chair a person.
IDS = np.array([26, 20, 23, 24, 7, 11, 33, 21, 27, 17, 19, 12, 13, 4], dtype=np.uint16)
OBJECTS = (24, 26, 27, 33)
CITIES = {"train": ("aachen", "bochum"), "val": ("frankfurt", "lindau")}
# Of two cameras 7 cm apart, in pixels of images of 1024 rows: this over the depth in metres.
DISPARITY = 60.0


def write(root: Path, size: tuple[int, int] | None, counts: Mapping[str, int]) -> None:
    """Writes the files.

    Args:
        root: The data set's folder.
        size: Height and width; None for those of the real images.
        counts: How many images each split has.
    """
    for folder, splits in (("train", ("train", "val")), ("val", ("test",))):
        chosen = [locate(split, index)[0] for split in splits for index in range(counts.get(split, 0))]
        for index, number in enumerate(chosen):
            city = CITIES[folder][index % 2]
            _write(root, folder, f"{city}/{city}_{index:06}_000019", room(number, size or NATIVE))


def _write(root: Path, folder: str, name: str, seen: Sample) -> None:
    ids = IDS[seen.label]
    with np.errstate(divide="ignore"):
        shift = DISPARITY * len(ids) / NATIVE[0] / seen.depth[..., 0]
    pictures: dict[str, NDArray[Any]] = {
        "leftImg8bit/{}_leftImg8bit": np.rint(255 * seen.image).astype(np.uint8),
        "gtFine/{}_gtFine_labelIds": ids.astype(np.uint8),
        "gtFine/{}_gtFine_instanceIds": np.where(np.isin(ids, OBJECTS), 1000 * ids + _numbers(seen), ids),
        "disparity/{}_disparity": np.where(seen.depth[..., 0] > 0, np.rint(256 * shift) + 1, 0).astype(np.uint16),
    }
    for place, values in pictures.items():
        path = root / f"{place.format(f'{folder}/{name}')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)


def _numbers(seen: Sample) -> NDArray[np.uint16]:
    return np.maximum(seen.inst.astype(np.int64) - len(SHELL), 0).astype(np.uint16)
