"""An image of a room with all of its labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.data.rooms.cast import Hits, cast
from isonomy.bench.data.rooms.objects import CLASSES
from isonomy.bench.data.rooms.paint import paint
from isonomy.bench.data.rooms.scene import SHELL, VERSION, Room, furnish
from isonomy.bench.data.rooms.view import View, look, rectangles, stand
from isonomy.bench.seeds import key
from isonomy.errors import IsonomyError

SMALLEST, LARGEST = (64, 64), (448, 576)
IGNORE = -1
# A surface that is seen at a cosine below the first has no depth, as with a real depth camera; nor have a few pixels.
GRAZING, LOST = 0.06, 0.004


class Sample(NamedTuple):
    """One image and its labels.

    Attributes:
        image: RGB in [0, 1], in steps of 1/255 as in a camera's file, (H, W, 3), float32.
        label: Index into ``CLASSES``, -1 where there is none, (H, W), int8.
        depth: Metres along the optical axis, 0 where there is none, (H, W, 1), float32.
        normal: Unit, in the camera frame (x to the right, y up, z to the viewer), 0 where there is none, (H, W, 3),
            float32.
        edge: 1 where the right or the lower neighbour is another instance, (H, W), uint8.
        sal: 1 on the object that is most in the middle, (H, W), uint8.
        part: Index into ``PARTS``, (H, W), uint8.
        inst: Instance; 0 to 5 are the ceiling, the floor and the four walls, (H, W), uint8.
    """

    image: NDArray[np.float32]
    label: NDArray[np.int8]
    depth: NDArray[np.float32]
    normal: NDArray[np.float32]
    edge: NDArray[np.uint8]
    sal: NDArray[np.uint8]
    part: NDArray[np.uint8]
    inst: NDArray[np.uint8]


def check_size(size: tuple[int, int]) -> None:
    """Refuses a size that rooms are not made in.

    Args:
        size: Height and width.

    Raises:
        IsonomyError: It is out of range.
    """
    if len(size) != 2 or not all(low <= side <= high for low, side, high in zip(SMALLEST, size, LARGEST, strict=True)):
        low, high = (f"{height} x {width}" for height, width in (SMALLEST, LARGEST))
        raise IsonomyError(f"size={size} is not possible for rooms: choose a height and a width from {low} to {high}.")


def _edges(instance: NDArray[np.uint8]) -> NDArray[np.uint8]:
    edge = np.zeros_like(instance)
    edge[:, :-1] = instance[:, :-1] != instance[:, 1:]
    edge[:-1] |= instance[:-1] != instance[1:]
    return edge


def _holes(view: View, room: Room, hits: Hits, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Where depth and normal are unknown, (H, W)."""
    rays = view.rays()
    facing = np.einsum("ijk,ijk->ij", hits.normal, rays) / np.sqrt(np.einsum("ijk,ijk->ij", rays, rays))
    lost = generator.random(facing.shape, dtype=np.float32) < LOST
    glass = room.kinds[hits.instance] == CLASSES.index("window")
    holes: NDArray[np.bool_] = glass | lost | (facing > -GRAZING)
    return holes


def generate(number: int, size: tuple[int, int], camera: int = 0) -> Sample:
    """A room seen by one of its cameras.

    It depends on the arguments alone, and on the size in no more than resolution, noise and holes.

    Args:
        number: Of the room, from 0.
        size: Height and width, from ``SMALLEST`` to ``LARGEST``.
        camera: Of the room's cameras, from 0.

    Raises:
        IsonomyError: The size is out of range.
    """
    check_size(size)
    generator = np.random.default_rng(key("rooms", VERSION, number, "camera", camera))
    room = furnish(number)
    view = look(stand(room, generator), size)
    # Who has lost its label, if anybody, is the first in this order that is seen.
    unlabelled, turn = generator.random() < 0.5, generator.permutation(len(room.kinds) - len(SHELL)) + len(SHELL)
    hits = cast(view, room, rectangles(view, room.primitives))

    away = (view.x / view.x.max()) ** 2 + ((view.y / view.y.max()) ** 2)[:, None]
    middle = np.bincount(hits.instance.ravel(), np.exp(-1.2 * away).ravel(), minlength=len(room.kinds))
    middle[: len(SHELL)] = 0
    salient = hits.instance == middle.argmax() if middle.any() else np.zeros(size, dtype=bool)
    label = room.kinds[hits.instance]
    seen = turn[middle[turn] > 0]
    if unlabelled and len(seen):
        label[hits.instance == seen[0]] = IGNORE
    holes = _holes(view, room, hits, generator)
    return Sample(
        image=paint(view, room, hits, generator),
        label=label,
        depth=np.where(holes, 0, hits.depth)[..., None],
        normal=np.where(holes[..., None], 0, hits.normal),
        edge=_edges(hits.instance),
        sal=salient.astype(np.uint8),
        part=hits.part,
        inst=hits.instance,
    )
