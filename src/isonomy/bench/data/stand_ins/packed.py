"""Generated rooms in MTAN's packaging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.data.rooms.sample import Sample, generate


def folders(root: Path, size: tuple[int, int], counts: Mapping[str, int]) -> Iterator[tuple[Path, int, Sample]]:
    """What to write: for each image the folder of its split, its number there, and a room.

    Args:
        root: Of the data set.
        size: Height and width.
        counts: How many of each split.
    """
    train = counts["train"] + counts["val"]
    for room in range(train + counts["test"]):
        name, number = ("train", room) if room < train else ("val", room - train)
        yield root / name, number, generate(room, size)


def save(folder: Path, number: int, **fields: NDArray[Any]) -> None:
    """Writes an image's files, in the double precision that the real ones seem to be in.

    Args:
        folder: Of the split.
        number: Of the image.
        fields: By name.
    """
    for name, values in fields.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        np.save(folder / name / f"{number}.npy", values.astype(np.float64))
