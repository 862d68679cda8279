"""What stands in a room: furniture and people made of boxes and ellipsoids.

Every kind is a function of a stream of uniform numbers. Lengths are metres; an object's own frame has its origin on the
floor, y up, and its back towards -z.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

# The 13 classes of NYUv2, in the order of its labels.
CLASSES = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)
# The parts of a person, in the order of PASCAL-Context's labels; 0 is no person.
PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")

Uniform = Callable[[float, float], float]


class Piece(NamedTuple):
    """A box, or the ellipsoid that fills it.

    Attributes:
        centre: In the object's frame.
        half: Half its lengths, or its radii.
        ellipsoid: Which of the two.
        part: Index into ``PARTS``.
    """

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    ellipsoid: bool = False
    part: int = 0


class Thing(NamedTuple):
    """What has one instance number: a class of ``CLASSES`` and the pieces that it is made of."""

    kind: str
    pieces: list[Piece]


def _ball(x: float, y: float, z: float, radii: tuple[float, float, float], part: int = 0) -> Piece:
    return Piece((x, y, z), radii, ellipsoid=True, part=part)


def bed(uniform: Uniform) -> list[Thing]:
    """A mattress, a headboard and a pillow, which is a thing of its own."""
    width, length, top = uniform(0.75, 0.95), uniform(0.95, 1.05), uniform(0.45, 0.6)
    mattress = Piece((0, top / 2, 0), (width, top / 2, length))
    board = Piece((0, 0.5, -length), (width, 0.5, 0.04))
    pillow = _ball(uniform(-0.2, 0.2), top + 0.05, 0.28 - length, (0.26, 0.09, 0.16))
    return [Thing("bed", [mattress, board]), Thing("objects", [pillow])]


def sofa(uniform: Uniform) -> list[Thing]:
    """A seat and a back."""
    width, top = uniform(0.75, 0.95), uniform(0.4, 0.5)
    seat = Piece((0, top / 2, 0), (width, top / 2, 0.42))
    back = Piece((0, top + 0.22, -0.34), (width, 0.24, 0.1))
    return [Thing("sofa", [seat, back])]


def table(uniform: Uniform) -> list[Thing]:
    """A top on four legs; often with books or a ball on it."""
    width, length, top = uniform(0.45, 0.65), uniform(0.35, 0.5), uniform(0.6, 0.78)
    legs = [
        Piece((x * (width - 0.06), top / 2 - 0.02, z * (length - 0.06)), (0.035, top / 2 - 0.02, 0.035))
        for x in (-1, 1)
        for z in (-1, 1)
    ]
    things = [Thing("table", [Piece((0, top, 0), (width, 0.03, length)), *legs])]
    if uniform(0, 1) < 0.6:
        side = uniform(-0.25, 0.05)
        things.append(Thing("books", [Piece((side, top + 0.08, 0.05), (0.13, 0.05, 0.17))]))
    if uniform(0, 1) < 0.5:
        radius = uniform(0.07, 0.12)
        things.append(Thing("objects", [_ball(0.25, top + 0.03 + radius, -0.1, (radius, radius, radius))]))
    return things


def chair(uniform: Uniform) -> list[Thing]:
    """A seat and a back on a column."""
    seat = uniform(0.4, 0.5)
    pieces = [
        Piece((0, seat, 0), (0.23, 0.04, 0.23)),
        Piece((0, seat + 0.28, -0.21), (0.22, 0.26, 0.03)),
        Piece((0, seat / 2 - 0.02, 0), (0.05, seat / 2 - 0.02, 0.05)),
    ]
    return [Thing("chair", pieces)]


def furniture(uniform: Uniform) -> list[Thing]:
    """A cupboard; sometimes with a television on it."""
    width, top, depth = uniform(0.3, 0.5), uniform(0.8, 2.0), uniform(0.2, 0.28)
    things = [Thing("furniture", [Piece((0, top / 2, 0), (width, top / 2, depth))])]
    if uniform(0, 1) < 0.4:
        things.append(Thing("tv", [Piece((0, top + 0.18, 0), (0.3, 0.18, 0.05))]))
    return things


def shelf(uniform: Uniform) -> list[Thing]:
    """Three boards before a back panel, and a row of books on one of them."""
    width, gap = uniform(0.35, 0.5), uniform(0.35, 0.5)
    boards = [Piece((0, 0.1 + gap * level, 0), (width, 0.025, 0.17)) for level in range(3)]
    panel = Piece((0, gap + 0.1, -0.18), (width, gap + 0.1, 0.02))
    row = Piece((uniform(-0.1, 0.1), gap + 0.245, 0), (width * 0.7, 0.12, 0.12))
    return [Thing("furniture", [*boards, panel]), Thing("books", [row])]


def lamp(uniform: Uniform) -> list[Thing]:
    """A pole and a shade."""
    height = uniform(1.1, 1.6)
    pole = Piece((0, height / 2, 0), (0.025, height / 2, 0.025))
    return [Thing("objects", [pole, _ball(0, height, 0, (0.2, 0.16, 0.2))])]


def ball(uniform: Uniform) -> list[Thing]:
    """A ball on the floor."""
    radius = uniform(0.12, 0.28)
    return [Thing("objects", [_ball(0, radius, 0, (radius, radius, radius))])]


def person(uniform: Uniform) -> list[Thing]:
    """Somebody who stands: ten ellipsoids, labelled with the six parts."""
    s = uniform(0.9, 1.06)
    stride = uniform(-0.06, 0.06)
    pieces = [
        _ball(0, 1.6 * s, 0, (0.1 * s, 0.13 * s, 0.11 * s), part=1),
        _ball(0, 1.18 * s, 0, (0.19 * s, 0.33 * s, 0.13 * s), part=2),
    ]
    for side in (-1, 1):
        swing = side * stride
        pieces += [
            _ball(side * 0.24 * s, 1.27 * s, 0, (0.065 * s, 0.18 * s, 0.065 * s), part=3),
            _ball(side * 0.26 * s, 0.95 * s, 0.04 - swing, (0.055 * s, 0.18 * s, 0.055 * s), part=4),
            _ball(side * 0.1 * s, 0.68 * s, swing / 2, (0.095 * s, 0.25 * s, 0.1 * s), part=5),
            _ball(side * 0.1 * s, 0.24 * s, swing, (0.075 * s, 0.25 * s, 0.085 * s), part=6),
        ]
    return [Thing("objects", pieces)]


# A floor object is drawn from these, each with the radius of the disc that it keeps free.
FLOOR: tuple[tuple[Callable[[Uniform], list[Thing]], float], ...] = (
    (bed, 1.0),
    (sofa, 0.8),
    (table, 0.6),
    (chair, 0.35),
    (furniture, 0.5),
    (lamp, 0.25),
    (chair, 0.35),
    (table, 0.6),
    (shelf, 0.5),
    (ball, 0.3),
)
