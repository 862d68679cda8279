"""Rooms of any size, larger ones than rooms are made in included."""

from __future__ import annotations

import numpy as np

from isonomy.bench.data.rooms.sample import LARGEST, Sample, generate


def room(number: int, size: tuple[int, int], camera: int = 0) -> Sample:
    """A room seen by one of its cameras, of larger pixels if need be.

    Args:
        number: Of the room, from 0.
        size: Height and width, from 64 x 64; where that is too large for a room, multiples of 2, 4, …
        camera: Of the room's cameras.
    """
    times = 1
    while any(side > most * times for side, most in zip(size, LARGEST, strict=True)):
        times *= 2
    small = generate(number, (size[0] // times, size[1] // times), camera)
    return Sample(*(np.repeat(np.repeat(array, times, axis=0), times, axis=1) for array in small))
