"""Rooms on disk: made once, read from there in every epoch of every run.

A split is a folder of blocks of 64 samples, each a file that is moved to its place when it is whole. So a kill costs no
more than the block in work, two processes that make the same one agree, and a larger split makes the new samples only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.data.rooms.noise import noisy
from isonomy.bench.data.rooms.sample import Sample, check_size, generate
from isonomy.bench.data.rooms.scene import VERSION
from isonomy.bench.records import replace, require_writable
from isonomy.errors import IsonomyError, unknown

# The room that each split begins with; no room is in two splits.
FIRST = {"train": 0, "val": 1_000_000, "test": 2_000_000}
ROOMS = 1_000_000
BLOCK = 64
# Seconds after which an unfinished file is known to be a killed process's.
FORGOTTEN = 3600.0


def home() -> Path:
    """The folder of everything cached: ``$ISONOMY_CACHE``, or ``isonomy`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if own := os.environ.get("ISONOMY_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "isonomy"


def locate(split: str, index: int, scans: int = 1) -> tuple[int, int]:
    """The room's number and the camera of a split's sample, as ``generate`` takes them.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        index: Of the sample, from 0.
        scans: How many cameras each room has; its samples follow each other.
    """
    return FIRST[split] + index // scans, index % scans


def _record(size: tuple[int, int]) -> np.dtype[np.void]:
    """A sample on disk, 24 bytes a pixel. The image has 256 steps anyway; floats first, so that they are aligned."""
    fields = (("depth", "<f4", (1,)), ("normal", "<f4", (3,)), ("image", "u1", (3,)), ("label", "i1", ()))
    masks = ((name, "u1", ()) for name in ("edge", "sal", "part", "inst"))
    return np.dtype([(name, kind, size + shape) for name, kind, shape in (*fields, *masks)])


class Column:
    """One array of a split's samples; ``column[indices]`` reads those from disk, into an array of its own.

    Args:
        blocks: Of ``BLOCK`` samples each, the last one of as many as are left, or more.
        count: How many samples.
    """

    def __init__(self, blocks: list[NDArray[Any]], count: int) -> None:
        self._blocks = blocks
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < self._count):
            raise IndexError(f"samples {chosen.min()} to {chosen.max()} of {self._count}")
        return np.stack([self._blocks[i // BLOCK][i % BLOCK] for i in chosen.tolist()])


class Split(NamedTuple):
    """The arrays of ``Sample``, each for all samples of a split; the image in steps of 1, from 0 to 255, as uint8."""

    image: Column
    label: Column
    depth: Column
    normal: Column
    edge: Column
    sal: Column
    part: Column
    inst: Column


def _open(path: Path, record: np.dtype[np.void]) -> NDArray[np.void]:
    """A block as it is on disk, which nobody can write."""
    try:
        with path.open("rb") as file:  # once, since another process may put a longer block in its place
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            size = os.fstat(file.fileno()).st_size - file.tell()
            if dtype != record or len(shape) != 1 or not 0 < shape[0] <= BLOCK or size != shape[0] * record.itemsize:
                raise ValueError("it is not a whole block of rooms")
            return np.memmap(file, record, "r", file.tell(), shape)
    except (ValueError, EOFError, OSError, SyntaxError, TokenError) as error:  # the last two: of a spoilt header
        raise IsonomyError(f"{path} cannot be read ({error}): delete it, and it is made anew.") from error


def _write(
    path: Path, record: np.dtype[np.void], old: NDArray[np.void], make: Callable[[int], Sample], rest: range
) -> None:
    """Writes a block: what there is of it, then further samples, each as soon as it is made."""
    require_writable(path.parent, "ISONOMY_CACHE")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*"):
        # Another process may finish its file, or remove this one, meanwhile.
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > FORGOTTEN:
                left.unlink()

    def fill(file: IO[bytes]) -> None:
        shape = (len(old) + len(rest),)
        header = {"descr": np.lib.format.dtype_to_descr(record), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(old.tobytes())
        row = np.empty((), dtype=record)
        for index in rest:
            for name, array in make(index)._asdict().items():
                row[name] = np.rint(255 * array) if name == "image" else array
            file.write(row.tobytes())

    replace(path, fill)


def cached(split: str, count: int, size: tuple[int, int], *, scans: int = 1, noise: bool = False) -> Split:
    """The first samples of a split, made where they are not on disk yet.

    What is read equals what ``generate`` makes, bit for bit.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``, which have no room in common.
        count: How many samples, from 1.
        size: Height and width, from 64 x 64 to 448 x 576.
        scans: How many cameras each room has, from 1. Sample i is camera i mod ``scans`` of the split's room
            i div ``scans``.
        noise: Whether the labels are spoilt, as ``noisy`` does it with the seed 0.

    Raises:
        IsonomyError: An argument is out of range, a file is damaged, or the folder cannot be written.
    """
    if split not in FIRST:
        raise unknown("split", split, FIRST)
    check_size(size)
    if scans < 1:
        raise IsonomyError(f"scans={scans}: a room has at least 1 camera.")
    if not 1 <= count <= ROOMS * scans:
        raise IsonomyError(f"count={count}: choose from 1 to {ROOMS * scans} samples.")

    def make(index: int) -> Sample:
        number, camera = locate(split, index, scans)
        sample = generate(number, size, camera)
        return noisy(sample, index, seed=0) if noise else sample

    name = "-".join([split, f"{size[0]}x{size[1]}", f"{scans}", *(["noisy"] if noise else [])])
    folder, record = home() / "rooms" / f"v{VERSION}" / name, _record(size)
    blocks = []
    for start in range(0, count, BLOCK):
        path, stop = folder / f"{start // BLOCK:05}.npy", min(start + BLOCK, count)
        block = _open(path, record) if path.exists() else np.empty(0, dtype=record)
        while start + len(block) < stop:  # again where another process has put a shorter block in its place
            _write(path, record, block, make, range(start + len(block), stop))
            block = _open(path, record)
        blocks.append(np.asarray(block))
    return Split(*(Column([block[name] for block in blocks], count) for name in Split._fields))
