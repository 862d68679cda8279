"""What there is to predict of a room: the tasks of each profile, and their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isonomy.bench.data import maps
from isonomy.bench.data.dense import DenseTask
from isonomy.bench.data.offsets import offsets
from isonomy.bench.data.rooms.cache import Split
from isonomy.bench.data.rooms.scene import SHELL

CLASSES, PARTS, GROUPS = 13, 7, 7
# Of the 13 classes (bed, books, ceiling, chair, floor, furniture, objects, picture, sofa, table, tv, wall, window) the
# coarse ones of ``city2``: floor and ceiling, wall and window, bed and sofa, chair and table, furniture, picture and
# tv, books and objects.
GROUP = (2, 6, 0, 3, 0, 4, 6, 5, 2, 3, 5, 1, 1)
# Inverse depth is stored as tiny numbers, as Cityscapes' is: this over the depth in metres.
NEAR = 0.05
FARTHEST = 6.0
# Lengths in ``city3`` are in pixels of images of this many rows, as Cityscapes' are, whatever the size: so the tasks'
# units are as far apart as there. Disparity is that of two cameras 7 cm apart, about: this over the depth in metres.
ROWS, DISPARITY = 1024, 60.0
# An image's diagonal is so short that a tolerance relative to it, as the benchmarks have, would be less than a pixel.
TOLERANCE = 1.5
# Always predicting one number costs about as much; scores are relative to it.
TRIVIAL_DEPTH, TRIVIAL_INVERSE, TRIVIAL_OFFSET, TRIVIAL_DISPARITY = 1.0, 0.008, 100.0, 10.0

SEGMENTATION = maps.classes(CLASSES)
RMSE = maps.distance(("RMSE",), TRIVIAL_DEPTH, FARTHEST)
EDGE = maps.edges(tolerance=TOLERANCE, unit="pixels", nms=False)

PROFILES: dict[str, tuple[DenseTask, ...]] = {
    "nyud4": (SEGMENTATION, RMSE, maps.normals(), EDGE),
    "nyu3": (
        maps.classes(CLASSES, ("mIoU", "PAcc")),
        maps.distance(("AErr", "RErr"), TRIVIAL_DEPTH, FARTHEST),
        maps.normals(maps.ANGLES),
    ),
    "context5": (SEGMENTATION, maps.classes(PARTS, name="parts"), maps.normals(), maps.saliency(), EDGE),
    "city2": (
        maps.classes(GROUPS, ("mIoU", "PAcc")),
        maps.distance(("AErr", "RErr"), TRIVIAL_INVERSE, NEAR),
    ),
    "city3": (
        SEGMENTATION,
        maps.middles(TRIVIAL_OFFSET, ROWS / 2),
        maps.disparity(TRIVIAL_DISPARITY, DISPARITY),
    ),
    "replica3": (SEGMENTATION, RMSE, maps.normals()),
}


def planes(array: NDArray[Any]) -> Tensor:
    """From (B, H, W, C) to (B, C, H, W).

    Args:
        array: Of images or maps.
    """
    return torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2)


def labels(arrays: Split, task: str, chosen: NDArray[np.int64], profile: str) -> Tensor:
    """What a task is to predict.

    Args:
        arrays: Of the split.
        task: Its name.
        chosen: Which samples.
        profile: Whose task it is.
    """
    if task == "normal":
        return planes(arrays.normal[chosen]).float()
    if task in ("depth", "disp"):
        depth = planes(arrays.depth[chosen]).float()
        far = NEAR / depth if profile == "city2" else depth
        return torch.where(depth > 0, DISPARITY / depth, torch.nan) if task == "disp" else far.where(depth > 0, 0)
    name = {"seg": "label", "parts": "part", "ins": "inst"}.get(task, task)
    found = torch.from_numpy(np.ascontiguousarray(getattr(arrays, name)[chosen])).long()
    if task == "ins":
        found = torch.where(found < len(SHELL), -1, found)
        return torch.stack([offsets(image) for image in found]) * (ROWS / found.shape[-2])
    if task == "seg" and profile == "city2":
        return torch.where(found == maps.IGNORED, found, torch.tensor(GROUP)[found.clamp_min(0)])
    return maps.without_people(found) if task == "parts" else found
