import math

import numpy as np
import pytest

from isonomy.bench.data.rooms import objects, scene
from isonomy.bench.data.rooms.scene import furnish
from isonomy.bench.data.rooms.view import stand


def corners(primitives, k):
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    x, y, z = (signs * primitives.half[k]).T
    c, s = math.cos(primitives.yaw[k]), math.sin(primitives.yaw[k])
    return primitives.centre[k] + np.stack([x * c + z * s, y, z * c - x * s], axis=1)


def test_the_same_number_gives_the_same_room_and_another_one_another():
    first, again, other = furnish(3), furnish(3), furnish(4)
    assert first.size == again.size != other.size
    for a, b in zip(first.primitives, again.primitives, strict=True):
        assert (a == b).all()
    assert (first.colours == again.colours).all()


def test_rooms_have_the_stated_sizes_and_objects():
    rooms = [furnish(number) for number in range(300)]
    low, high = np.min([room.size for room in rooms], axis=0), np.max([room.size for room in rooms], axis=0)
    assert low == pytest.approx([2.8, 2.2, 3.2], abs=0.05)
    assert high == pytest.approx([4.6, 2.8, 5.2], abs=0.05)
    for room in rooms:
        names = [objects.CLASSES[kind] for kind in room.kinds]
        assert tuple(names[:6]) == scene.SHELL
        assert len(room.colours) == len(room.texture) == len(names)
        # Every instance has a primitive, and the other way round.
        assert (np.unique(room.primitives.instance) == np.arange(6, len(names))).all()
        # Only people have parts, and there is at most one.
        whose = np.unique(room.primitives.instance[room.primitives.part > 0])
        assert len(whose) <= 1
        assert all(names[k] == "objects" for k in whose)
        assert (room.primitives.half > 0).all()
    seen = {objects.CLASSES[kind] for room in rooms for kind in room.kinds}
    assert seen == set(objects.CLASSES)


def test_a_person_is_ten_ellipsoids_of_the_six_parts_from_the_floor_to_the_height_of_a_grown_up():
    [thing] = objects.person(lambda low, high: (low + high) / 2)
    assert all(piece.ellipsoid for piece in thing.pieces)
    assert sorted(piece.part for piece in thing.pieces) == [1, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert min(piece.centre[1] - piece.half[1] for piece in thing.pieces) == pytest.approx(0, abs=0.02)
    assert 1.6 < max(piece.centre[1] + piece.half[1] for piece in thing.pieces) < 1.8


@pytest.mark.parametrize("make", [make for make, _ in objects.FLOOR] + [objects.person])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_objects_stand_on_the_floor_and_fit_under_the_ceiling(make, share):
    pieces = [piece for thing in make(lambda low, high: low + share * (high - low)) for piece in thing.pieces]
    assert min(piece.centre[1] - piece.half[1] for piece in pieces) == pytest.approx(0, abs=0.08)
    assert max(piece.centre[1] + piece.half[1] for piece in pieces) < 2.4
    assert all(0 <= piece.part < len(objects.PARTS) for piece in pieces)


def test_discs_of_objects_keep_apart(monkeypatch):
    kept = []
    place = scene._place

    def watched(uniform, radius, size, discs):
        found = place(uniform, radius, size, discs)
        kept.append(discs)
        return found

    monkeypatch.setattr(scene, "_place", watched)
    for number in range(50):
        furnish(number)
    crowded = 0
    for discs in {id(discs): discs for discs in kept}.values():
        for i, (x, z, r) in enumerate(discs):
            for a, b, other in discs[:i]:
                assert (x - a) ** 2 + (z - b) ** 2 > 0.7 * (r + other) ** 2
                crowded += 1
    assert crowded > 100


def test_no_camera_is_inside_of_anything():
    for number in range(200):
        room = furnish(number)
        things = room.primitives
        for camera in range(3):
            position = np.array(stand(room, np.random.default_rng(camera)).position)
            for k in range(len(things.yaw)):
                c, s = math.cos(things.yaw[k]), math.sin(things.yaw[k])
                x, y, z = position - things.centre[k]
                local = np.abs([x * c - z * s, y, x * s + z * c])
                assert (local > things.half[k]).any()


def test_things_on_walls_are_flat_on_them():
    for number in range(100):
        room = furnish(number)
        width, height, depth = room.size
        for instance in range(6, len(room.kinds)):
            if objects.CLASSES[room.kinds[instance]] not in ("picture", "window"):
                continue
            [k] = np.flatnonzero(room.primitives.instance == instance)
            x, y, z = corners(room.primitives, k).T
            assert y.min() > 0
            assert y.max() < height
            distances = [np.abs(z + depth / 2), np.abs(x - width / 2), np.abs(x + width / 2)]
            assert min(distance.max() for distance in distances) < 0.06
