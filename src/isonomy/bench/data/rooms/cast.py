"""What each ray of a view hits first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.data.rooms.scene import Primitives, Room, turned
from isonomy.bench.data.rooms.view import NEAR, Floats, Rectangle, View

Triple = tuple[float, float, float]
Ray = tuple[Floats, Floats, Floats]

# The room's own faces, by a code that is twice the axis, plus one on its positive side: instance and normal.
_FACES = np.array([2, 3, 1, 0, 4, 5], dtype=np.uint8)
_INWARD = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=np.float64)


class Hits(NamedTuple):
    """The nearest surface along every ray, (H, W).

    Attributes:
        depth: Its depth along the optical axis, in metres.
        instance: Whose it is.
        part: Of a person, index into ``PARTS``.
        normal: Unit, on the camera's side, in the camera frame, (H, W, 3).
    """

    depth: NDArray[np.float32]
    instance: NDArray[np.uint8]
    part: NDArray[np.uint8]
    normal: NDArray[np.float32]


def _slab(w: Floats, origin: float, half: float) -> tuple[Floats, Floats]:
    """Where rays enter and leave the space between two planes.

    Args:
        w: Their directions across it.
        origin: Where they start, from its middle.
        half: Half its thickness.
    """
    # With the sign of w, a ray along the slab (w = 0) gives infinities of the right sign, not 0 times infinity.
    inverse, reach = 1 / w, np.copysign(np.float32(half), w)
    return (-origin - reach) * inverse, (reach - origin) * inverse


def _box(ray: Ray, origin: Triple, half: Triple) -> tuple[Floats, Floats]:
    """Where rays enter and leave a box in its own frame; those that miss it leave before they enter."""
    (x0, x1), (y0, y1), (z0, z1) = (_slab(*axis) for axis in zip(ray, origin, half, strict=True))
    return np.maximum(np.maximum(x0, z0), y0), np.minimum(np.minimum(x1, z1), y1)


def _ellipsoid(ray: Ray, origin: Triple, radii: Triple) -> Floats:
    """Where rays enter an ellipsoid in its own frame; NaN for those that miss it."""
    x, y, z = (w * (1 / r) for w, r in zip(ray, radii, strict=True))
    a, b, c = (o / r for o, r in zip(origin, radii, strict=True))
    square, half = x * x + z * z + y * y, x * a + z * c + y * b
    entry: Floats = (-half - np.sqrt(half * half - square * (a * a + b * b + c * c - 1))) / square
    return entry


def _shell(view: View, room: Room) -> tuple[Floats, NDArray[np.intp]]:
    """Depth of the walls, the floor and the ceiling, and which one it is, as a code of ``_FACES``."""
    (width, height, length), (x, y, z) = room.size, view.camera.position
    rays = view.directions(0.0)
    origin, half = (x, y - height / 2, z), (width / 2, height / 2, length / 2)
    exits = [_slab(*axis)[1] for axis in zip(rays, origin, half, strict=True)]
    depth = np.minimum(np.minimum(exits[0], exits[2]), exits[1])
    across, up, along = (2 * axis + (w > 0) for axis, w in enumerate(rays))
    return depth, np.where(exits[1] == depth, up, np.where(exits[0] == depth, across, along))


def _normals(view: View, primitives: Primitives, origins: Floats, depth: Floats, winner: NDArray[np.int16]) -> Floats:
    """Normals of the primitives that won, in the order of ``np.nonzero``, (n, 3)."""
    rows, columns = np.nonzero(winner >= 0)
    k = winner[rows, columns]
    x, z = turned(view.x[columns], view.ahead[rows], (view.camera.yaw - primitives.yaw).astype(np.float32)[k])
    ray = np.stack([x, view.up[rows], z], axis=-1)
    half = primitives.half.astype(np.float32)[k]
    local = origins[k] + depth[rows, columns, None] * ray
    ellipsoid = primitives.ellipsoid[k]
    # On a box the point lies on the face whose plane it is nearest to.
    face = np.argmax(np.abs(local) - half, axis=-1)[:, None] == np.arange(3)
    inner = np.where(ellipsoid[:, None], local / (half * half), np.copysign(face, local))
    # The axes of each primitive's frame, as the camera sees them.
    x, z = turned(np.eye(3)[:, 0], np.eye(3)[:, 2], primitives.yaw[:, None])
    y = np.broadcast_to(np.eye(3)[:, 1], x.shape)
    axes = view.seen(np.stack([x, y, z], axis=-1)).astype(np.float32)[k]
    seen: Floats = inner[:, 0, None] * axes[:, 0] + inner[:, 1, None] * axes[:, 1] + inner[:, 2, None] * axes[:, 2]
    seen /= np.linalg.norm(seen, axis=-1, keepdims=True)
    return seen


def cast(view: View, room: Room, windows: Iterable[tuple[int, Rectangle]]) -> Hits:
    """Casts a view's rays into a room.

    Args:
        view: The rays.
        room: What they meet.
        windows: Which primitives to try, in which order, on which part of the screen; see ``rectangles``.
    """
    primitives = room.primitives
    apart = np.array(view.camera.position) - primitives.centre
    x, z = turned(apart[:, 0], apart[:, 2], -primitives.yaw)
    origins = np.stack([x, apart[:, 1], z], axis=-1)
    columns = (primitives.ellipsoid, origins, primitives.half, primitives.yaw)
    table = list(zip(*(column.tolist() for column in columns), strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        depth, code = _shell(view, room)
        winner = np.full(depth.shape, -1, dtype=np.int16)
        for k, window in windows:
            ellipsoid, origin, half, yaw = table[k]
            ray, sofar = view.directions(yaw, window), depth[window]
            if ellipsoid:
                entry = _ellipsoid(ray, origin, half)
                hit = entry < sofar
            else:
                entry, leave = _box(ray, origin, half)
                hit = entry < np.minimum(leave, sofar)
            hit &= entry > NEAR
            np.copyto(sofar, entry, where=hit)
            np.copyto(winner[window], np.int16(k), where=hit)
    instance, normal = _FACES[code], view.seen(_INWARD).astype(np.float32)[code]
    part = np.zeros_like(instance)
    objects = winner >= 0
    won = winner[objects]
    instance[objects], part[objects] = primitives.instance[won], primitives.part[won]
    normal[objects] = _normals(view, primitives, origins.astype(np.float32), depth, winner)
    return Hits(depth, instance, part, normal)
