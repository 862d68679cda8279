"""Wrong labels, to see how methods cope with them.

Recipe of "Revisit the Imbalance Optimization in Multi-task Learning", section IV-E, Table V: five of an image's classes
get half of their pixels wrong, depth and normals Gaussian noise. Its strength is not stated there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPOILT, RATE = 5, 0.5
# Of the depth: metres, and a share of it.
SIGMA_DEPTH = (0.1, 0.05)
# Of each component of the normal, in degrees.
SIGMA_NORMAL = 15.0
# Noise must neither put a surface behind the camera nor make it a hole.
NEAREST = 0.05

Floats = NDArray[np.float32]


def spoilt(
    label: NDArray[Any], depth: Floats, normal: Floats, classes: int, generator: np.random.Generator
) -> tuple[NDArray[Any], Floats, Floats]:
    """Wrong class, depth and normal of an image's pixels; what has no label keeps none.

    Args:
        label: Classes, (H, W), of a signed type that holds twice their number; negative where there is none.
        depth: Metres, (H, W, 1); 0 where there is none.
        normal: Unit vectors, (H, W, 3); 0 where there is none.
        classes: How many there are, at most 128.
        generator: Where random numbers come from.

    Returns:
        The same three, as arrays of their own.
    """
    label = label.copy()
    present = np.unique(label[label >= 0])
    chosen = generator.permutation(present)[:SPOILT]
    wrong = np.isin(label, chosen) & (generator.random(label.shape, dtype=np.float32) < RATE)
    # A step of less than once around the classes never ends where it began.
    step = generator.integers(1, classes, size=label.shape, dtype=np.int8)
    label[wrong] = (label[wrong] + step[wrong]) % classes

    shift = generator.standard_normal(depth.shape, dtype=np.float32)
    distance = depth + shift * (SIGMA_DEPTH[0] + SIGMA_DEPTH[1] * depth)
    turn = generator.standard_normal(normal.shape, dtype=np.float32)
    direction = normal + math.radians(SIGMA_NORMAL) * turn
    direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), np.float32(1e-6))
    return (
        label,
        np.where(depth > 0, np.maximum(distance, np.float32(NEAREST)), 0),
        np.where((normal != 0).any(axis=-1, keepdims=True), direction, 0),
    )
