"""Rooms in the files of ``pascal5``, with somebody in each of them: few samples have to have all labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count as count_from
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat  # type: ignore[import-untyped]

from isonomy.bench.data.rooms.cache import locate
from isonomy.bench.data.rooms.sample import SMALLEST, Sample, generate

NATIVE = (375, 500)
FOLDERS = (
    "ImageSets/Context", "JPEGImages", "pascal-context/trainval", "semseg/VOC12", "semseg/pascal-context",
    "human_parts", "normals_distill", "sal_distill",
)  # fmt: skip
# The rooms' classes (bed, books, ceiling, chair, floor, furniture, objects, picture, sofa, table, tv, wall, window) in
# PASCAL VOC and in PASCAL-Context, where furniture is a cabinet and objects are toys. The last entry is for what has no
# label, -1.
VOC = np.array([0, 0, 0, 9, 0, 0, 0, 0, 18, 11, 20, 0, 0, 255], dtype=np.uint8)
CONTEXT = np.array([18, 33, 68, 72, 158, 46, 413, 287, 368, 397, 427, 440, 454, 431], dtype=np.uint16)
CHAIR = 3
VOC_CHAIR, VOC_PERSON, CONTEXT_PERSON = 9, 15, 284
# A name for each of the rooms' parts, from 1.
NAMES = ("head", "torso", "luarm", "rlarm", "ruleg", "llleg")


def write(root: Path, size: tuple[int, int] | None, counts: Mapping[str, int]) -> None:
    """Writes the files.

    Args:
        root: The data set's folder.
        size: Height and width; None for those of many real images.
        counts: How many images each split has; what is for validation is part of what is for training.
    """
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, list_name, count in (
        ("train", "train", counts["train"] + counts["val"]), ("test", "val", counts["test"]),
    ):  # fmt: skip
        names = [f"2008_{split}{index:04}" for index in range(count)]
        (root / "ImageSets" / "Context" / f"{list_name}.txt").write_text("".join(f"{name}\n" for name in names))
        for index, (name, number) in enumerate(zip(names, _inhabited(locate(split, 0)[0]), strict=False)):
            # Half of the class maps are where they are looked for in the second place.
            folder = ("VOC12", "pascal-context")[index % 2]
            _write(root, name, folder, generate(number, size or NATIVE))


def _inhabited(first: int) -> Iterator[int]:
    """The numbers of the rooms in which somebody is seen."""
    return (number for number in count_from(first) if (generate(number, SMALLEST).part > 0).any())


def _write(root: Path, name: str, folder: str, room: Sample) -> None:
    person = room.part > 0
    pictures = {
        "JPEGImages": np.rint(255 * room.image),
        f"semseg/{folder}": np.where(person, VOC_PERSON, VOC[room.label]),
        "normals_distill": np.rint(127.5 * (room.normal + 1)),
        "sal_distill": np.where(room.sal, 230, 20),
    }
    for place, values in pictures.items():
        ending = "jpg" if place == "JPEGImages" else "png"
        Image.fromarray(values.astype(np.uint8)).save(root / place / f"{name}.{ending}")
    categories = np.where(person, CONTEXT_PERSON, CONTEXT[room.label]).astype(np.uint16)
    savemat(root / "pascal-context" / "trainval" / f"{name}.mat", {"LabelMap": categories}, do_compression=True)
    savemat(root / "human_parts" / f"{name}.mat", {"anno": annotation(name, things(room))}, do_compression=True)


def things(room: Sample) -> list[tuple[str, int, NDArray[np.uint8], list[tuple[str, NDArray[np.uint8]]]]]:
    """A room's objects as ``annotation`` takes them: its person and its chairs."""
    chairs = (room.label == CHAIR).astype(np.uint8)
    found: list[Any] = [("chair", VOC_CHAIR, chairs, [])] if chairs.any() else []
    masks = [(part, (room.part == number).astype(np.uint8)) for number, part in enumerate(NAMES, 1)]
    named = [(part, mask) for part, mask in masks if mask.any()]
    return [*found, ("person", VOC_PERSON, (room.part > 0).astype(np.uint8), named)]


def annotation(
    name: str, objects: list[tuple[str, int, NDArray[np.uint8], list[tuple[str, NDArray[np.uint8]]]]]
) -> dict[str, Any]:
    """The variable ``anno`` of an image.

    Args:
        name: Of the image.
        objects: Of each object its class, the class's number, its mask and its parts, names and masks.
    """
    rows = [
        (kind, np.uint8(number), mask, _structs(("part_name", "mask"), parts)) for kind, number, mask, parts in objects
    ]
    return {"imname": name, "objects": _structs(("class", "class_ind", "mask", "parts"), rows)}


def _structs(fields: tuple[str, ...], rows: list[Any]) -> NDArray[Any]:
    """An array of structures, 1 x N, as MATLAB has it; without any the empty matrix."""
    if not rows:
        return np.zeros((0, 0))
    found = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for column, row in enumerate(rows):
        found[0, column] = row
    return found
