"""Rooms made by hand, and a slow way to cast a ray, to compare with."""

import math

import numpy as np

from isonomy.bench.data.rooms import scene
from isonomy.bench.data.rooms.objects import CLASSES
from isonomy.bench.data.rooms.view import Camera

LEVEL = Camera((0.0, 1.5, 1.8), 0.0, 0.0, math.tan(math.radians(30)))


def room(*pieces):
    """A room of 4 x 3 x 4 metres with (ellipsoid, centre, half, yaw) of class ``objects`` in it."""
    ellipsoid, centre, half, yaw = zip(*pieces, strict=True)
    count = len(pieces)
    kinds = [CLASSES.index(kind) for kind in (*scene.SHELL, *["objects"] * count)]
    return scene.Room(
        (4.0, 3.0, 4.0),
        (0.0, 2.8, 0.0),
        (0.0, 0.0),
        scene.Primitives(
            np.array(ellipsoid),
            np.array(centre, dtype=float),
            np.array(half, dtype=float),
            np.array(yaw, dtype=float),
            np.arange(6, 6 + count, dtype=np.uint8),
            np.zeros(count, dtype=np.uint8),
        ),
        np.array(kinds, dtype=np.int8),
        np.full((len(kinds), 3), 0.5, dtype=np.float32),
        np.tile(np.float32([0.0, 2.0]), (len(kinds), 1)),
    )


def axes(camera):
    """The camera's axes in the world, as rows: to the right, up and to the viewer."""
    a, p = camera.yaw, camera.pitch
    viewer = np.array([math.cos(p) * math.sin(a), -math.sin(p), math.cos(p) * math.cos(a)])
    right = np.array([math.cos(a), 0, -math.sin(a)])
    return np.stack([right, np.cross(viewer, right), viewer])


def nearest(room, origin, direction):
    """How far a ray goes, in lengths of its direction: planes tried one by one, spheres by their quadratic."""
    width, height, depth = room.size
    hits = [
        (side * bound - o) / w
        for o, w, bound, low in zip(origin, direction, (width / 2, height, depth / 2), (-1, 0, -1), strict=True)
        for side in (low, 1)
        if abs(w) > 1e-12 and (side * bound - o) / w > 0
    ]
    found = min(hits)
    things = room.primitives
    for k in range(len(things.yaw)):
        c, s = math.cos(things.yaw[k]), math.sin(things.yaw[k])
        into = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
        o, w, half = into @ (origin - things.centre[k]), into @ direction, things.half[k]
        if things.ellipsoid[k]:
            o, w = o / half, w / half
            roots = np.roots([w @ w, 2 * w @ o, o @ o - 1])
            candidates = roots.real[np.abs(roots.imag) < 1e-12]
        else:
            candidates = [
                t
                for axis in range(3)
                for side in (-1, 1)
                for t in [(side * half[axis] - o[axis]) / w[axis]]
                if all(abs(o[i] + t * w[i]) <= half[i] for i in range(3) if i != axis)
            ]
        found = min([found, *(t for t in candidates if t > 0.05)])
    return found
