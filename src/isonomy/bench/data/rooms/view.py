"""A camera in a room: its rays, and where on the screen a thing can be.

Camera frame: x to the right, y up, z to the viewer. A ray's direction has z = -1, so the parameter of a point on it is
its depth along the optical axis, in metres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.data.rooms.scene import Primitives, Room, turned

NEAR = 0.05

Floats = NDArray[np.floating[Any]]
Rectangle = tuple[slice, slice]


class Camera(NamedTuple):
    """Where it stands and looks.

    Attributes:
        position: In the world.
        yaw: About y, in radians; 0 looks along -z.
        pitch: About x, in radians; negative looks down.
        tangent: Of half the vertical field of view.
    """

    position: tuple[float, float, float]
    yaw: float
    pitch: float
    tangent: float


class View(NamedTuple):
    """A camera's rays through the centres of an H x W image's pixels.

    Attributes:
        camera: Whose they are.
        x: Of the directions in the camera frame, the same in every row, (W,).
        y: Likewise, the same in every column, (H,).
        up: Of the directions in the world, the same in every column, (H,).
        ahead: Their z once the pitch is taken off, the same in every column, (H,).
    """

    camera: Camera
    x: Floats
    y: Floats
    up: Floats
    ahead: Floats

    def directions(self, yaw: float, window: Rectangle = (slice(None), slice(None))) -> tuple[Floats, Floats, Floats]:
        """The world's rays in a frame that is turned about y, (h, w), (h, 1) and (h, w).

        Args:
            yaw: Of that frame, in radians; 0 is the world.
            window: Rows and columns.
        """
        rows, columns = window
        x, z = turned(self.x[columns], self.ahead[rows, None], self.camera.yaw - yaw)
        return x, self.up[rows, None], z

    def rays(self) -> Floats:
        """Every ray's direction in the camera frame, (H, W, 3)."""
        rays = np.empty((len(self.y), len(self.x), 3), dtype=np.float32)
        rays[..., 0], rays[..., 1], rays[..., 2] = self.x, self.y[:, None], -1
        return rays

    def seen(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Directions of the world in the camera frame.

        Args:
            points: (..., 3).
        """
        x, z = turned(points[..., 0], points[..., 2], -self.camera.yaw)
        y, z = turned(points[..., 1], z, self.camera.pitch)
        return np.stack([x, y, z], axis=-1)


def stand(room: Room, generator: np.random.Generator) -> Camera:
    """A camera at the +z end of a room that looks at about its middle.

    Args:
        room: Where.
        generator: Six numbers of it are used.
    """
    across, back, height, aside, pitch, angle = generator.random(6).tolist()
    width, _, depth = room.size
    x, z = (across - 0.5) * 0.7 * width, depth / 2 - 0.1 - 0.2 * back
    yaw = math.atan2(x - room.middle[0], z - room.middle[1]) + 0.6 * aside - 0.3
    return Camera((x, 1.1 + 0.7 * height, z), yaw, 0.34 * pitch - 0.42, math.tan(math.radians(25 + 11 * angle)))


def look(camera: Camera, size: tuple[int, int]) -> View:
    """The rays of an image.

    Args:
        camera: Where it stands and looks.
        size: Height and width.
    """
    height, width = size
    v = (1 - (2 * np.arange(height, dtype=np.float32) + 1) / height) * camera.tangent
    u = ((2 * np.arange(width, dtype=np.float32) + 1) / width - 1) * (camera.tangent * width / height)
    return View(camera, u, v, *turned(v, -1.0, -camera.pitch))


# The corners of a box, in half lengths.
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)


def rectangles(view: View, primitives: Primitives) -> Iterator[tuple[int, Rectangle]]:
    """Where on the screen each primitive can be, the nearest first; those out of sight are left out.

    Projected corners bound what is inside of them as long as all lie before the camera; a box that reaches behind it
    gets the whole screen.

    Args:
        view: The rays.
        primitives: What is in the room.
    """
    local = _CORNERS * primitives.half[:, None]
    x, z = turned(local[..., 0], local[..., 2], primitives.yaw[:, None])
    corners = view.seen(
        np.stack([x, local[..., 1], z], axis=-1) + (primitives.centre - np.array(view.camera.position))[:, None]
    )
    depth = -corners[..., 2]
    before = depth.min(axis=1) > NEAR
    scale = 0.5 / (view.camera.tangent * np.where(before[:, None], depth, 1.0))
    height, width = len(view.y), len(view.x)
    column = corners[..., 0] * scale * height + 0.5 * width
    row = 0.5 * height - corners[..., 1] * scale * height
    # A pixel's centre is half a pixel from its corner; the other half is for rounding.
    low = np.floor(np.stack([row.min(axis=1), column.min(axis=1)], axis=-1)) - 1
    high = np.ceil(np.stack([row.max(axis=1), column.max(axis=1)], axis=-1)) + 1
    limits = (height, width)
    first = np.where(before[:, None], np.clip(low, 0, limits), 0).astype(int)
    last = np.where(before[:, None], np.clip(high, 0, limits), limits).astype(int)
    possible = (depth.max(axis=1) > NEAR) & (last > first).all(axis=1)
    order = np.argsort(depth.min(axis=1), kind="stable")
    for k in order[possible[order]].tolist():
        (top, left), (bottom, right) = first[k].tolist(), last[k].tolist()
        yield k, (slice(top, bottom), slice(left, right))
