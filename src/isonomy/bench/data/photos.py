"""Photographs that are labelled as a whole: read from disk and brought to one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from isonomy.bench.data.decode import coloured, planes, reading
from isonomy.errors import IsonomyError


def photo(path: Path, index: int, size: tuple[int, int]) -> Tensor:
    """A photograph, stretched or shrunk to a size whatever its own proportions, bilinearly and without aliases.

    Args:
        path: The file.
        index: Of its sample in the split, for errors.
        size: Height and width.

    Returns:
        Shape (3, H, W), float32 in [0, 1].

    Raises:
        IsonomyError: The file is missing, or no picture.
    """
    with reading(path, index):
        try:
            with Image.open(path) as picture:
                resized = coloured(picture).resize(size[::-1], Image.Resampling.BILINEAR)
        except UnidentifiedImageError as error:
            raise ValueError(f"it begins with {beginning(path)!r}, as no picture does") from error
    return planes(np.array(resized)) / 255


def beginning(path: Path, count: int = 15) -> bytes:
    """A file's first bytes: a host that is out of quota sends a page of text under any name.

    Args:
        path: The file.
        count: How many bytes.
    """
    with path.open("rb") as file:
        return file.read(count)


def check_options(name: str, size: tuple[int, int], batch_size: int, workers: int) -> None:
    """Refuses options that no data set of photographs can have.

    Args:
        name: Of the data set.
        size: Height and width.
        batch_size: Images a step.
        workers: Processes that read ahead.

    Raises:
        IsonomyError: One is out of range.
    """
    least = {"size": (min(size) if len(size) == 2 else 0, 8), "batch_size": (batch_size, 1), "workers": (workers, 0)}
    for option, (value, smallest) in least.items():
        if value < smallest:
            given = "x".join(map(str, size)) if option == "size" else value
            wanted = "two numbers, 8x8 or more" if option == "size" else f"{smallest} or more"
            raise IsonomyError(f"Option {option} of {name} is {given}: it must be {wanted}.")
