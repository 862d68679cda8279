"""What a camera's picture of a room looks like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.data.rooms.cast import Hits
from isonomy.bench.data.rooms.objects import CLASSES
from isonomy.bench.data.rooms.scene import Room
from isonomy.bench.data.rooms.view import View

NOISE = 0.02

# What each class looks like on average; every instance differs from it.
_PALETTE = np.array(
    [
        [0.70, 0.25, 0.30],  # bed
        [0.80, 0.55, 0.10],  # books
        [0.95, 0.95, 0.92],  # ceiling
        [0.20, 0.45, 0.25],  # chair
        [0.50, 0.36, 0.22],  # floor
        [0.36, 0.22, 0.12],  # furniture
        [0.85, 0.60, 0.50],  # objects
        [0.30, 0.60, 0.75],  # picture
        [0.25, 0.25, 0.60],  # sofa
        [0.65, 0.48, 0.28],  # table
        [0.06, 0.06, 0.08],  # tv
        [0.80, 0.76, 0.66],  # wall
        [0.75, 0.85, 0.95],  # window
    ],
    dtype=np.float32,
)


def paint(view: View, room: Room, hits: Hits, generator: np.random.Generator) -> NDArray[np.float32]:
    """The picture: matt surfaces with checks in the light of one lamp, and a camera's noise, in 256 steps, (H, W, 3).

    Args:
        view: The rays.
        room: What is seen.
        hits: Where.
        generator: Of the noise.
    """
    lamp = view.seen(np.array(room.light) - np.array(view.camera.position)).astype(np.float32)
    way = lamp - hits.depth[..., None] * view.rays()
    square = np.einsum("ijk,ijk->ij", way, way)
    towards = np.maximum(np.einsum("ijk,ijk->ij", hits.normal, way), 0) / np.sqrt(square)
    light = 0.35 + 3.6 * towards / (1 + square)

    strength, frequency = room.texture[:, 0][hits.instance], room.texture[:, 1][hits.instance]
    checks = np.zeros(hits.depth.shape, dtype=np.int32)
    for w, origin in zip(view.directions(0.0), view.camera.position, strict=True):
        # Moved a little, so that no wall lies just between two checks.
        checks += np.floor((hits.depth * w + origin) * frequency + 0.37).astype(np.int32)
    light *= 1 - strength * (checks & 1)

    bright = (0.45 * _PALETTE[room.kinds] + 0.55 * room.colours)[hits.instance] * light[..., None]
    bright[room.kinds[hits.instance] == CLASSES.index("window")] += 0.3
    bright = np.sqrt(np.clip(bright, 0, 1)) + NOISE * generator.standard_normal(bright.shape, dtype=np.float32)
    picture: NDArray[np.float32] = np.rint(255 * np.clip(bright, 0, 1)) / 255
    return picture
