"""Small trees of generated samples in the real formats, for tests and for trying an experiment without its data."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from isonomy.errors import unknown

# Where ``write(root, size, counts)`` of each is, or a function of another name after the colon.
_WRITERS = {
    "nyuv2": "nyuv2",
    "nyud4": "nyud4",
    "cityscapes2": "cityscapes2",
    "cityscapes3": "cityscapes3",
    "pascal5": "pascal5",
    "replica3": "replica3",
    "office31": "office:office31",
    "officehome": "office:officehome",
    "qm9": "qm9",
    "celeba": "celeba",
}
NAMES = tuple(_WRITERS)
COUNTS = {"train": 4, "val": 2, "test": 2}


def write(name: str, root: Path, size: tuple[int, int] | None = None, counts: Mapping[str, int] | None = None) -> None:
    """Writes generated samples as files of a data set.

    Args:
        name: Of the data set.
        root: Its own folder, which is made.
        size: Height and width of the images; None for the real one.
        counts: How many samples, ``"train"``, ``"val"`` and ``"test"``; where there is no split for validation on
            disk, train and val together are the training split. None for a few.

    Raises:
        IsonomyError: There is no such data set.
    """
    if name not in _WRITERS:
        raise unknown("data set with a stand-in", name, NAMES)
    module, _, function = _WRITERS[name].partition(":")
    writer = getattr(import_module(f"{__name__}.{module}"), function or "write")
    root.mkdir(parents=True, exist_ok=True)
    writer(root, size, COUNTS if counts is None else counts)
