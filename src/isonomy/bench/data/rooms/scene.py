"""A room and all that is in it, drawn from a number.

World frame, in metres: x to the right, y up, the floor at y = 0, the room's axis along z; cameras stand at its +z end.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.data.rooms.objects import CLASSES, FLOOR, Piece, Thing, Uniform, person
from isonomy.bench.seeds import key

VERSION = 1

# Instances 0 to 5: the ceiling, the floor and the walls at -x, +x, -z and +z.
SHELL = ("ceiling", "floor", "wall", "wall", "wall", "wall")
# Strip at the +z end that objects leave to the cameras.
FREE = 0.5
TRIES = 4
WALL_THINGS = ("picture", "window", "picture", "tv")
# More than a room can use: 6 for itself, 18 for each of 10 objects, 13 for a person, 25 for its walls.
NUMBERS = 400


class Primitives(NamedTuple):
    """Every box and ellipsoid of a room, K of them.

    Attributes:
        ellipsoid: Whether it is one; (K,), bool.
        centre: In the world, (K, 3).
        half: Half lengths or radii in its own frame, (K, 3).
        yaw: How it is turned about y, in radians, (K,).
        instance: What it belongs to, (K,).
        part: Index into ``PARTS``, (K,).
    """

    ellipsoid: NDArray[np.bool_]
    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    yaw: NDArray[np.float64]
    instance: NDArray[np.uint8]
    part: NDArray[np.uint8]


class Room(NamedTuple):
    """A room without a camera.

    Attributes:
        size: Along x, y and z.
        light: Where the lamp hangs.
        middle: Mean (x, z) of the objects on the floor, where cameras look.
        primitives: What is in it.
        kinds: Class of each of the N instances, (N,); the first six are ``SHELL``.
        colours: Random colour of each instance in [0, 1], (N, 3), float32.
        texture: Strength and frequency of each instance's checks, (N, 2), float32.
    """

    size: tuple[float, float, float]
    light: tuple[float, float, float]
    middle: tuple[float, float]
    primitives: Primitives
    kinds: NDArray[np.int8]
    colours: NDArray[np.float32]
    texture: NDArray[np.float32]


class _Placed(NamedTuple):
    """A thing with its place in the world."""

    thing: Thing
    x: float
    y: float
    z: float
    yaw: float


def turned(x: Any, z: Any, angle: float | NDArray[np.floating[Any]]) -> tuple[Any, Any]:
    """Coordinates, numbers or arrays of them, after a turn that takes the second axis towards the first.

    Of (x, z) it is a turn about y; of (y, z) a turn about -x.

    Args:
        x: The first coordinate.
        z: The second one.
        angle: In radians; a number leaves float32 arrays what they are.
    """
    where = math if isinstance(angle, float) else np
    cosine, sine = where.cos(angle), where.sin(angle)
    return x * cosine + z * sine, z * cosine - x * sine


def _place(
    uniform: Uniform, radius: float, size: tuple[float, float, float], discs: list[tuple[float, float, float]]
) -> tuple[float, float] | None:
    """A free place on the floor for a disc, which joins the others; None when the tries are used up."""
    width, _, depth = size
    for _ in range(TRIES):
        x = uniform(radius - width / 2, width / 2 - radius)
        z = uniform(radius - depth / 2, depth / 2 - radius - FREE)
        if all((x - a) ** 2 + (z - b) ** 2 > 0.7 * (radius + r) ** 2 for a, b, r in discs):
            discs.append((x, z, radius))
            return x, z
    return None


def _on_floor(
    uniform: Uniform, size: tuple[float, float, float]
) -> tuple[list[_Placed], list[tuple[float, float, float]]]:
    """Objects and perhaps a person, where there is room for them, and their discs (x, z, radius)."""
    discs: list[tuple[float, float, float]] = []
    placed = []
    makers = [FLOOR[int(uniform(0, len(FLOOR)))] for _ in range(int(uniform(6, 11)))]
    if uniform(0, 1) < 0.7:
        makers.append((person, 0.42))
    for make, radius in makers:
        place = _place(uniform, radius, size, discs)
        if place is not None:
            yaw = int(uniform(0, 4)) * math.pi / 2 + uniform(-0.4, 0.4)
            placed += [_Placed(thing, place[0], 0.0, place[1], yaw) for thing in make(uniform)]
    return placed, discs


def _on_walls(uniform: Uniform, size: tuple[float, float, float]) -> list[_Placed]:
    """Two to four flat boxes on the back wall or a side wall."""
    width, height, depth = size
    placed = []
    for i in range(int(uniform(2, 5))):
        kind = WALL_THINGS[int(uniform(0, len(WALL_THINGS)))]
        half, tall = uniform(0.35, 0.8), uniform(0.4, 0.7)
        y = min(uniform(1.3, 1.8), height - tall - 0.05)
        # Each a little thicker than the last, so that two that overlap have no surface in common.
        thing = Thing(kind, [Piece((0, 0, 0), (half, tall, 0.03 + 0.005 * i))])
        wall, along = int(uniform(0, 3)), uniform(-1, 1)
        if wall == 0:
            placed.append(_Placed(thing, along * (width / 2 - half), y, -depth / 2, 0.0))
        else:
            side = width / 2 if wall == 1 else -width / 2
            placed.append(_Placed(thing, side, y, along * (depth / 2 - half), math.pi / 2))
    return placed


def _primitives(placed: list[_Placed]) -> Primitives:
    rows = []
    for instance, (thing, x, y, z, yaw) in enumerate(placed, len(SHELL)):
        for (a, b, c), half, ellipsoid, part in thing.pieces:
            dx, dz = turned(a, c, yaw)
            rows.append((x + dx, y + b, z + dz, *half, yaw, ellipsoid, instance, part))
    table = np.array(rows)
    whole = table[:, 7:].astype(np.uint8)
    return Primitives(whole[:, 0].astype(bool), table[:, :3], table[:, 3:6], table[:, 6], whole[:, 1], whole[:, 2])


def furnish(number: int) -> Room:
    """The room of that number.

    Args:
        number: Any; the same one gives the same room.
    """
    generator = np.random.default_rng(key("rooms", VERSION, number))
    # One block, because a call of the generator costs more than the number it gives.
    stream = iter(generator.random(NUMBERS).tolist())

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(next(stream))

    size = (uniform(2.8, 4.6), uniform(2.2, 2.8), uniform(3.2, 5.2))
    light = (uniform(-0.3, 0.3) * size[0], size[1] - 0.2, uniform(-0.3, 0.3) * size[2])
    standing, discs = _on_floor(uniform, size)
    placed = standing + _on_walls(uniform, size)
    kinds = [*SHELL, *(thing.kind for thing, *_ in placed)]
    looks = generator.random((len(kinds), 5), dtype=np.float32)
    return Room(
        size,
        light,
        (sum(x for x, _, _ in discs) / len(discs), sum(z for _, z, _ in discs) / len(discs)),
        _primitives(placed),
        np.array([CLASSES.index(kind) for kind in kinds], dtype=np.int8),
        looks[:, :3],
        looks[:, 3:] * np.array([0.25, 3.0], dtype=np.float32) + np.array([0.0, 1.5], dtype=np.float32),
    )
