"""A small ``cityscapes2`` of generated rooms, with their classes in groups and the inverse of their depth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from isonomy.bench.data.rooms.profiles import GROUP, NEAR
from isonomy.bench.data.stand_ins.packed import folders, save

SIZE = (128, 256)


def write(root: Path, size: tuple[int, int] | None, counts: Mapping[str, int]) -> None:
    """See ``stand_ins.write``."""
    groups = np.array([*GROUP, -1])  # a label of -1 takes the last
    for folder, number, room in folders(root, size or SIZE, counts):
        inverse = np.divide(NEAR, room.depth, out=np.zeros_like(room.depth), where=room.depth > 0)
        save(folder, number, image=room.image, label=groups[room.label], depth=inverse)
