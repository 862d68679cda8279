"""Human parts of PASCAL: from the masks in ``.mat`` files to a map of seven classes, which is kept once it is made.

Left and right are one part, so a mirrored image's parts are the mirrored parts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat  # type: ignore[import-untyped]

from isonomy.bench.data.decode import fitting, picture, reading
from isonomy.bench.data.rooms.cache import home
from isonomy.bench.records import replace, require_writable

PERSON = 15
HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = range(1, 7)
COUNT = 7  # with the background, 0
_MIDDLE = {"head": HEAD, "hair": HEAD, "mouth": HEAD, "nose": HEAD, "neck": TORSO, "torso": TORSO}
_SIDED = {
    "ear": HEAD, "ebrow": HEAD, "eye": HEAD, "uarm": UPPER_ARM, "larm": LOWER_ARM, "hand": LOWER_ARM,
    "uleg": UPPER_LEG, "lleg": LOWER_LEG, "foot": LOWER_LEG,
}  # fmt: skip
PARTS = _MIDDLE | {side + name: part for side in "lr" for name, part in _SIDED.items()}

Map = NDArray[np.uint8]


def parts(path: Path, index: int, size: tuple[int, int]) -> Map:
    """The part at every pixel, 0 where there is none.

    Parsing takes longer than all else about a sample, so the map is kept in the cache, outside of the user's files.

    Args:
        path: The ``.mat`` file.
        index: Of its sample in the split.
        size: Height and width of the image.

    Raises:
        IsonomyError: The file is missing or damaged, or the cache cannot be written.
    """
    kept = _place(path, index)
    if kept.exists():
        try:
            return picture(kept, size).astype(np.uint8)
        except (OSError, ValueError, SyntaxError):
            pass  # what is spoilt is made again
    found = parsed(path, index, size)
    require_writable(kept.parent, "ISONOMY_CACHE")
    kept.parent.mkdir(parents=True, exist_ok=True)
    replace(kept, lambda file: Image.fromarray(found).save(file, "PNG"))
    return found


def _place(path: Path, index: int) -> Path:
    """Where a file's map is kept; another one when the file changes."""
    with reading(path, index):
        about = path.stat()
    told = f"{path.resolve()}/{about.st_size}/{about.st_mtime_ns}"
    return home() / "pascal5" / "parts-v1" / f"{path.stem}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.png"


def parsed(path: Path, index: int, size: tuple[int, int]) -> Map:
    """The same, from the file alone.

    Args:
        path: The ``.mat`` file: a variable ``anno`` with ``objects``, each of a class and with named masks of parts.
        index: Of its sample in the split.
        size: Height and width of the image.

    Raises:
        IsonomyError: The file is missing or damaged.
    """
    found = np.zeros(size, dtype=np.uint8)
    with reading(path, index):
        for thing in loadmat(path)["anno"]["objects"][0, 0].ravel():
            if int(thing["class_ind"].item()) == PERSON:
                _add(thing["parts"], found)
    return found


def _add(named: NDArray[Any], found: Map) -> None:
    """Draws a person's parts; where masks overlap the later one counts."""
    if not named.size:  # nobody has looked at this person's parts
        return
    for part in named.ravel():
        name = str(part["part_name"].item())
        if name not in PARTS:
            raise ValueError(f"{name!r} is no part of a person")
        found[fitting(part["mask"], found.shape) != 0] = PARTS[name]


def label_map(path: Path, index: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """PASCAL-Context's category, of 459, at every pixel.

    Args:
        path: The ``.mat`` file, with a variable ``LabelMap``.
        index: Of its sample in the split.
        size: Height and width of the image.

    Raises:
        IsonomyError: The file is missing or damaged.
    """
    with reading(path, index):
        categories: NDArray[np.int64] = fitting(loadmat(path)["LabelMap"], size).astype(np.int64)
        return categories
