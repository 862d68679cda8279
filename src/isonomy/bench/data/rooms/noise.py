"""Wrong labels, to see how methods cope with them.

Recipe of "Revisit the Imbalance Optimization in Multi-task Learning", section IV-E, Table V: five of an image's classes
get half of their pixels wrong, depth and normals Gaussian noise. Its strength is not stated there.
"""

from __future__ import annotations

import math

import numpy as np

from isonomy.bench.data.rooms.objects import CLASSES
from isonomy.bench.data.rooms.sample import Sample
from isonomy.bench.data.rooms.scene import VERSION
from isonomy.bench.seeds import key

SPOILT, RATE = 5, 0.5
# Of the depth: metres, and a share of it.
SIGMA_DEPTH = (0.1, 0.05)
# Of each component of the normal, in degrees.
SIGMA_NORMAL = 15.0
# Noise must neither put a surface behind the camera nor make it a hole.
NEAREST = 0.05


def noisy(sample: Sample, index: int, seed: int) -> Sample:
    """A sample with wrong class, depth and normal; the image and the other labels stay, and so do holes.

    Args:
        sample: One, not a stack. It is not changed.
        index: In its split; with the seed it decides the noise.
        seed: Of the noise, the same in every epoch.
    """
    generator = np.random.default_rng(key("rooms", VERSION, "noise", seed, index))
    label = sample.label.copy()
    present = np.unique(label[label >= 0])
    spoilt = generator.permutation(present)[:SPOILT]
    wrong = np.isin(label, spoilt) & (generator.random(label.shape, dtype=np.float32) < RATE)
    # A step of 1 to 12 around the 13 classes never ends where it began.
    step = generator.integers(1, len(CLASSES), size=label.shape, dtype=np.int8)
    label[wrong] = (label[wrong] + step[wrong]) % len(CLASSES)

    shift = generator.standard_normal(sample.depth.shape, dtype=np.float32)
    depth = sample.depth + shift * (SIGMA_DEPTH[0] + SIGMA_DEPTH[1] * sample.depth)
    turn = generator.standard_normal(sample.normal.shape, dtype=np.float32)
    normal = sample.normal + math.radians(SIGMA_NORMAL) * turn
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), np.float32(1e-6))
    return sample._replace(
        label=label,
        depth=np.where(sample.depth > 0, np.maximum(depth, np.float32(NEAREST)), 0),
        normal=np.where((sample.normal != 0).any(axis=-1, keepdims=True), normal, 0),
    )
