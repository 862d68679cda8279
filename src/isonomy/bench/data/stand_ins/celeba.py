"""A stand-in for ``celeba``: coloured noise, whose colour three of the attributes tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from isonomy.bench.data.celeba import ATTRIBUTES, FOLDER, LABELS, ON_DISK, PARTITION
from isonomy.bench.data.stand_ins.office import picture
from isonomy.bench.seeds import key

SIZE = (218, 178)


def write(root: Path, size: tuple[int, int] | None, counts: Mapping[str, int]) -> None:
    """Writes ``celeba``; the first image of a split has the attributes that the second has not.

    Args:
        root: The data set's folder.
        size: Height and width; None for that of the aligned faces.
        counts: How many images each split has.
    """
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    partition: list[str] = []
    for split in ON_DISK:
        has = np.zeros(len(ATTRIBUTES), dtype=bool)
        for number in range(counts[split]):
            name = f"{len(lines) + 1:06d}.jpg"
            draw = np.random.default_rng(key("stand-in", "celeba", len(lines))).random(len(ATTRIBUTES)) < 0.5
            has = ~has if number % 2 else draw
            kind = int(has[0]) + 2 * int(has[1]) + 4 * int(has[2])
            picture(kind, key("stand-in", "celeba", "noise", len(lines)), size or SIZE).save(root / FOLDER / name)
            lines.append(f"{name} " + " ".join(" 1" if each else "-1" for each in has) + "\n")
            partition.append(f"{name} {ON_DISK.index(split)}\n")
    (root / LABELS).write_text(f"{len(lines)}\n{' '.join(ATTRIBUTES)} \n{''.join(lines)}")
    (root / PARTITION).write_text("".join(partition))
