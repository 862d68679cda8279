"""A small ``nyuv2`` of generated rooms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from isonomy.bench.data.stand_ins.packed import folders, save

SIZE = (288, 384)


def write(root: Path, size: tuple[int, int] | None, counts: Mapping[str, int]) -> None:
    """See ``stand_ins.write``."""
    for folder, number, room in folders(root, size or SIZE, counts):
        save(folder, number, image=room.image, label=room.label, depth=room.depth, normal=room.normal)
