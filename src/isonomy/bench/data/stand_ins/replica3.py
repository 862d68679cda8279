"""Rooms in the files of ``replica3``, in Omnidata's newer packaging."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isonomy.bench.data.rooms.cache import FIRST
from isonomy.bench.data.rooms.sample import Sample
from isonomy.bench.data.stand_ins.enlarged import room

NATIVE = (512, 512)
BUILDINGS = {"train": ("apartment_0", "office_1"), "val": ("apartment_2", "office_0"), "test": ("office_2", "room_1")}
POINTS = 2
# The rooms' classes in Replica's list: bed, book, ceiling, chair, floor, cabinet, pillow, picture, sofa, table,
# tv-screen, wall, window. The last entry is for what has no label, -1.
NUMBERS = np.array([7, 13, 31, 20, 40, 18, 61, 59, 76, 80, 87, 93, 97, 0], dtype=np.uint8)


def write(root: Path, size: tuple[int, int] | None, counts: Mapping[str, int]) -> None:
    """Writes the files: of each split two buildings, each with two points.

    Args:
        root: The data set's folder.
        size: Height and width; None for those of the real images.
        counts: How many images each split has.
    """
    for split, buildings in BUILDINGS.items():
        for index in range(counts[split]):
            scan, which = divmod(index, len(buildings))
            view, point = divmod(scan, POINTS)
            seen = room(FIRST[split] + which, size or NATIVE, scan)
            _write(root, buildings[which], f"point_{point}_view_{view}", seen)


def _write(root: Path, building: str, name: str, seen: Sample) -> None:
    there = seen.depth[..., 0] > 0
    none = np.zeros_like(NUMBERS[seen.label])
    # Stored with y down and z away from the viewer; the grey that marks what has none is not quite 0.
    normal = np.where(there[..., None], np.rint(127.5 * (seen.normal * (1, -1, -1) + 1)), 128)
    pictures: dict[str, NDArray[Any]] = {
        "rgb": np.rint(255 * seen.image).astype(np.uint8),
        "semantic": np.stack([NUMBERS[seen.label], none, seen.inst], axis=-1),
        "depth_zbuffer": np.where(there, np.rint(512 * seen.depth[..., 0]), 65535).astype(np.uint16),
        "normal": normal.astype(np.uint8),
        "mask_valid": np.where(there, 255, 0).astype(np.uint8),
    }
    for modality, values in pictures.items():
        folder = root / modality / "replica" / building
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / f"{name}_domain_{modality}.png")
