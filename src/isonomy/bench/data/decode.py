"""Files of images and labels as arrays; whatever cannot be read, or does not fit its image, is named."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from isonomy.bench.data.roots import Layout, damaged
from isonomy.errors import IsonomyError

Array = NDArray[Any]


@contextmanager
def reading(path: Path, index: int) -> Iterator[None]:
    """Whatever goes wrong inside is the file's fault, and said to be.

    Args:
        path: The file.
        index: Of its sample in the split.

    Raises:
        IsonomyError: Something went wrong.
    """
    try:
        yield
    except IsonomyError:
        raise
    except Exception as error:  # parsers of spoilt files fail in ways that nobody has listed
        raise damaged(path, index, str(error) or type(error).__name__) from error


def names(layout: Layout, path: Path) -> list[str]:
    """The samples that a list names, one a line.

    Args:
        layout: Of the data set.
        path: The list.

    Raises:
        IsonomyError: There is no such file, or it is no text.
    """
    layout.require(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise layout.error(f"{path} cannot be read ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def named(layout: Layout, folder: Path, split: str) -> list[str]:
    """The samples of a split that the lists ``train.txt`` and ``val.txt`` name, of which the second is to test on.

    Args:
        layout: Of the data set.
        folder: Where the lists are.
        split: ``"train"`` or ``"test"``.

    Raises:
        IsonomyError: A list is missing or no text, or a sample is named twice: it could be trained on and tested.
    """
    found = {own: names(layout, folder / f"{own}.txt") for own in ("train", "val")}
    counts = Counter([*found["train"], *found["val"]])
    if twice := next((name for name, count in counts.items() if count > 1), None):
        raise layout.error(f"the lists in {folder} name {twice} twice")
    return found["val" if split == "test" else split]


def inside(layout: Layout, folder: Path) -> set[str]:
    """The names of what is in a folder, without the hidden files that systems leave beside those of users.

    Args:
        layout: Of the data set.
        folder: Any.

    Raises:
        IsonomyError: There is no such folder.
    """
    layout.require(folder)
    try:
        return {name for name in os.listdir(folder) if not name.startswith(".")}
    except OSError as error:
        raise layout.error(f"{folder} cannot be read ({error})") from error


def require_all(layout: Layout, folder: Path, files: Iterable[str]) -> None:
    """Refuses a folder that lacks a file. It is listed once, which on a network is faster than asking for each file.

    Args:
        layout: Of the data set.
        folder: Where they are.
        files: Their names.

    Raises:
        IsonomyError: One is missing; the first such is named.
    """
    there = inside(layout, folder)
    for file in files:
        if file not in there:
            raise layout.error(f"{folder / file} is missing")


def image(path: Path, index: int) -> Tensor:
    """An image, RGB in [0, 1], (3, H, W), float32.

    Args:
        path: The file.
        index: Of its sample in the split.
    """
    with reading(path, index), Image.open(path) as opened:
        return planes(np.array(coloured(opened))) / 255


def coloured(opened: Image.Image) -> Image.Image:
    """A picture as RGB of 8 bits.

    Args:
        opened: Of any mode.

    Raises:
        ValueError: It has more than 8 bits, of which the conversion would make white.
    """
    if opened.mode.startswith(("I", "F")):
        raise ValueError(f"it is of mode {opened.mode}, and 8 bits are wanted")
    return opened.convert("RGB")


def picture(path: Path, size: tuple[int, int], channels: int = 0) -> Array:
    """The numbers in a picture of labels, a palette's indices included; call it inside of ``reading``.

    Args:
        path: The file.
        size: Height and width of the image that it belongs to.
        channels: 0 for one number a pixel, (H, W), else the last dimension of the result.
    """
    with Image.open(path) as opened:
        # A single bit is black or white, as 0 and 255 are.
        return fitting(np.array(opened.convert("L") if opened.mode == "1" else opened), size, channels)


def numbers(path: Path, size: tuple[int, int], channels: int = 0) -> Array:
    """The array in an ``.npy`` file; as ``picture``.

    Args:
        path: The file.
        size: Height and width of the image that it belongs to.
        channels: As for ``picture``; one channel of its own is as good as none.
    """
    values: Array = np.load(path, allow_pickle=False)
    return fitting(values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values, size, channels)


def fitting(values: Array, size: tuple[int, int], channels: int = 0) -> Array:
    """The values, if they are of the shape that they have to be of.

    Args:
        values: Any numbers.
        size: Height and width of the image that they belong to.
        channels: As for ``picture``.

    Raises:
        ValueError: They are not, or are no finite numbers.
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(f"it holds {values.dtype}, not numbers")
    expected = (*size, channels) if channels else tuple(size)
    if values.shape != expected:
        raise ValueError(f"its shape is {values.shape}, its image wants {expected}")
    if not np.isfinite(values).all():
        raise ValueError("some of its values are not finite")
    return values


def within(values: Array, allowed: Iterable[int]) -> NDArray[np.int64]:
    """The values as integers, if no other ones are among them.

    Args:
        values: Any numbers.
        allowed: What they may be.

    Raises:
        ValueError: There is another one.
    """
    wanted = list(allowed)
    if len(other := np.setdiff1d(values, wanted)):
        raise ValueError(f"it holds {other[0]:g}, which is none of {wanted[0]}, …, {wanted[-1]}")
    return values.astype(np.int64)


def wide(values: Array) -> Array:
    """The values, if they have more than 8 bits, into which what is measured in 16 has not fitted.

    Args:
        values: Of a picture.

    Raises:
        ValueError: They have not.
    """
    if values.dtype.itemsize < 2:
        raise ValueError("its numbers have 8 bits, and 16 are wanted")
    return values


def planes(values: Array) -> Tensor:
    """From (H, W, C) to (C, H, W), float32."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32))


def directions(values: Array, least: float = 0.0) -> Tensor:
    """Unit vectors (3, H, W), and 0 where there is none.

    Args:
        values: Shape (H, W, 3), in [-1, 1].
        least: A shorter vector is none; one of length 0 never is.

    Raises:
        ValueError: A component is outside.
    """
    if np.abs(values).max() > 1.001:
        raise ValueError(f"a component is {np.abs(values).max():g}, beyond 1")
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    valid = (length >= least) & (length > 0)
    return planes(np.where(valid, values / np.where(valid, length, 1), 0))


def from_bytes(values: Array) -> Array:
    """Vectors in [-1, 1] that are stored as 0 to 255."""
    return 2 * values.astype(np.float64) / 255 - 1
