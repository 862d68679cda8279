"""Rooms in the files of ``nyud4``, all pictures ``.png``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from isonomy.bench.data.rooms.cache import locate
from isonomy.bench.data.rooms.sample import generate

NATIVE = (425, 560)
# The rooms' classes among NYUD-v2's, which count from 1: bed, books, ceiling, chair, floor, other furniture, other
# props, picture, sofa, table, television, wall, window. The last entry is for what has no label, -1.
NUMBERS = np.array([4, 23, 22, 5, 2, 39, 40, 11, 6, 7, 25, 1, 9, 0], dtype=np.uint8)


def write(root: Path, size: tuple[int, int] | None, counts: Mapping[str, int]) -> None:
    """Writes the files.

    Args:
        root: The data set's folder.
        size: Height and width; None for those of the real images.
        counts: How many images each split has; what is for validation is part of what is for training.
    """
    folders = {name: root / name for name in ("gt_sets", "images", "segmentation", "depth", "normals", "edge")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for split, list_name, count in (
        ("train", "train", counts["train"] + counts["val"]), ("test", "val", counts["test"]),
    ):  # fmt: skip
        names = [f"{split}_{index:04}" for index in range(count)]
        (folders["gt_sets"] / f"{list_name}.txt").write_text("".join(f"{name}\n" for name in names))
        for index, name in enumerate(names):
            room = generate(locate(split, index)[0], size or NATIVE)
            pictures = {
                "images": np.rint(255 * room.image),
                "segmentation": NUMBERS[room.label],
                "normals": np.rint(127.5 * (room.normal + 1)),
                "edge": 255 * room.edge,
            }
            for kind, values in pictures.items():
                Image.fromarray(values.astype(np.uint8)).save(folders[kind] / f"{name}.png")
            np.save(folders["depth"] / f"{name}.npy", room.depth[..., 0])
