"""Rooms with wrong labels."""

from __future__ import annotations

import numpy as np

from isonomy.bench.data.noise import spoilt
from isonomy.bench.data.rooms.objects import CLASSES
from isonomy.bench.data.rooms.sample import Sample
from isonomy.bench.data.rooms.scene import VERSION
from isonomy.bench.seeds import key


def noisy(sample: Sample, index: int, seed: int) -> Sample:
    """A sample with wrong class, depth and normal; the image and the other labels stay, and so do holes.

    Args:
        sample: One, not a stack. It is not changed.
        index: In its split; with the seed it decides the noise.
        seed: Of the noise, the same in every epoch.
    """
    generator = np.random.default_rng(key("rooms", VERSION, "noise", seed, index))
    label, depth, normal = spoilt(sample.label, sample.depth, sample.normal, len(CLASSES), generator)
    return sample._replace(label=label, depth=depth, normal=normal)
