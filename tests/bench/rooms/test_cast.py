import math

import numpy as np
import pytest

from isonomy.bench.data.rooms.cast import _slab, cast
from isonomy.bench.data.rooms.scene import furnish
from isonomy.bench.data.rooms.view import Camera, look, rectangles, stand
from tests.bench.rooms import plain

TURNED = Camera((0.3, 1.4, 1.2), 0.7, -0.3, math.tan(math.radians(33)))


def view_of(number, size):
    room = furnish(number)
    return room, look(stand(room, np.random.default_rng(number)), size)


def seen(room, view):
    return cast(view, room, rectangles(view, room.primitives))


def test_depth_normal_and_instance_of_a_box_and_a_ball_straight_ahead():
    # The middle ray of an odd image runs along -z, so both other components of its direction are exactly 0.
    view = look(plain.LEVEL, (65, 65))
    box = (False, (0.0, 1.5, -1.0), (0.4, 0.4, 0.5), 0.0)
    ball = (True, (0.0, 1.5, 0.5), (0.3, 0.3, 0.3), 0.0)
    for things, depth, instance in (([box], 2.3, 6), ([ball], 1.0, 6), ([box, ball], 1.0, 7), ([ball, box], 1.0, 6)):
        hits = seen(plain.room(*things), view)
        assert hits.depth[32, 32] == pytest.approx(depth, abs=1e-5)
        assert hits.normal[32, 32] == pytest.approx([0, 0, 1], abs=1e-6)
        assert hits.instance[32, 32] == instance


def test_rays_along_a_slab_are_inside_of_it_or_miss_it():
    with np.errstate(divide="ignore"):
        for zero in (0.0, -0.0):
            w = np.float32([zero])
            near, far = _slab(w, 0.2, 0.5)
            assert (near[0], far[0]) == (-np.inf, np.inf)
            for outside in (0.7, -0.7):
                near, far = _slab(w, outside, 0.5)
                assert near[0] == far[0] != 0
    near, far = _slab(np.float32([2.0, -2.0]), -1.5, 0.5)
    assert near == pytest.approx([0.5, -1.0])
    assert far == pytest.approx([1.0, -0.5])


def test_the_walls_of_an_empty_room_with_their_normals_to_the_inside():
    nothing = plain.room((False, (0.0, 1.0, 5.0), (0.1, 0.1, 0.1), 0.0))  # behind the camera
    directions = {
        0: (np.pi * 0.0, math.pi / 2 - 0.01),  # up: the ceiling
        1: (0.0, 0.01 - math.pi / 2),
        2: (math.pi / 2, 0.0),  # a positive yaw turns from -z to -x
        3: (-math.pi / 2, 0.0),
        4: (0.0, 0.0),
        5: (math.pi, 0.0),
    }
    inward = {0: (0, -1, 0), 1: (0, 1, 0), 2: (1, 0, 0), 3: (-1, 0, 0), 4: (0, 0, 1), 5: (0, 0, -1)}
    distance = {0: 1.5, 1: 1.5, 2: 2.0, 3: 2.0, 4: 3.8, 5: 0.2}
    for wall, (yaw, pitch) in directions.items():
        camera = plain.LEVEL._replace(yaw=yaw, pitch=pitch)
        hits = seen(nothing, look(camera, (65, 65)))
        assert hits.instance[32, 32] == wall
        assert hits.depth[32, 32] == pytest.approx(distance[wall], rel=1e-3)
        assert hits.normal[32, 32] == pytest.approx(plain.axes(camera) @ inward[wall], abs=1e-6)


def test_normals_have_x_to_the_right_y_up_and_z_to_the_viewer():
    ball = plain.room((True, (0.0, 1.5, 0.0), (0.5, 0.5, 0.5), 0.0))
    hits = seen(ball, look(plain.LEVEL, (129, 129)))
    on = hits.instance == 6
    rows, columns = np.nonzero(on)
    x, y, z = hits.normal[on].T
    # The normal of a ball turns to its right edge, its upper edge and, in the middle, to the viewer.
    assert np.corrcoef(x, columns)[0, 1] > 0.95
    assert np.corrcoef(y, -rows)[0, 1] > 0.95
    assert z.min() > 0
    assert z.argmax() == pytest.approx(len(z) / 2, abs=1)
    points = hits.depth[on][:, None] * look(plain.LEVEL, (129, 129)).rays()[on]
    assert hits.normal[on] == pytest.approx((points - [0, 0, -1.8]) / 0.5, abs=1e-4)


def test_depth_is_that_of_a_slow_way_to_cast_rays():
    pick = np.random.default_rng(0)
    wrong = count = 0
    for number in range(12):
        room, view = view_of(number, (64, 96))
        hits = seen(room, view)
        axes = plain.axes(view.camera)
        for row, column in pick.integers(0, [64, 96], size=(30, 2)):
            direction = view.rays()[row, column].astype(float) @ axes
            expected = plain.nearest(room, np.array(view.camera.position), direction)
            wrong += abs(hits.depth[row, column] - expected) > 1e-3
            count += 1
    # Rounding decides which of two things a ray along an outline meets.
    assert wrong <= 0.005 * count


def test_a_turned_box_and_a_turned_ellipsoid_are_met_where_the_slow_way_meets_them():
    for ellipsoid in (False, True):
        room = plain.room((ellipsoid, (0.2, 1.2, -0.5), (0.9, 0.3, 0.2), 0.6))
        view = look(TURNED._replace(yaw=0.2, pitch=-0.1), (64, 64))
        hits = seen(room, view)
        on = hits.instance == 6
        assert 200 < on.sum() < 3000
        axes = plain.axes(view.camera)
        for row, column in np.argwhere(on)[::37]:
            direction = view.rays()[row, column].astype(float) @ axes
            expected = plain.nearest(room, np.array(view.camera.position), direction)
            assert hits.depth[row, column] == pytest.approx(expected, abs=1e-4)


def test_nothing_behind_the_camera_is_hit():
    # A low box from before the camera to far behind it: rays that look up would meet it backwards.
    room = plain.room((False, (0.0, 0.1, 8.0), (0.5, 0.1, 10.0), 0.0))
    view = look(plain.LEVEL._replace(pitch=0.1), (64, 64))
    hits = cast(view, room, [(0, (slice(0, 64), slice(0, 64)))])
    assert hits.depth.min() > 0
    assert (hits.instance[:20] != 6).all()
    assert (hits.instance == 6).any()


def test_rectangles_change_nothing():
    whole = (slice(0, 64), slice(0, 64))
    tried = 0
    for number in range(200):
        room, view = view_of(number, (64, 64))
        culled = list(rectangles(view, room.primitives))
        order = [k for k, _ in culled]
        rest = [k for k in range(len(room.primitives.yaw)) if k not in order]
        everywhere = cast(view, room, [(k, whole) for k in order + rest])
        for a, b in zip(cast(view, room, culled), everywhere, strict=True):
            assert (a == b).all()
        tried += len(rest) + sum(window != whole for _, window in culled)
    assert tried > 2000  # most primitives are not looked for on the whole screen


def test_normals_are_unit_and_on_the_camera_s_side():
    away = total = 0
    for number in range(40):
        room, view = view_of(number, (64, 64))
        normal = seen(room, view).normal
        assert normal.dtype == np.float32
        assert np.abs(np.linalg.norm(normal.astype(float), axis=-1) - 1).max() < 2e-7
        away += ((normal * view.rays()).sum(axis=-1) >= 0).sum()
        total += 64 * 64
    # At an outline, rounding may take the hidden face of a box.
    assert away < 1e-4 * total


def test_normals_agree_with_finite_differences_of_the_depth():
    errors = []
    for number in range(6):
        room, view = view_of(number, (256, 256))
        hits = seen(room, view)
        points = hits.depth[..., None].astype(float) * view.rays()
        right = points[1:-1, 2:] - points[1:-1, :-2]
        up = points[:-2, 1:-1] - points[2:, 1:-1]
        slope = np.cross(right, up)
        slope /= np.linalg.norm(slope, axis=-1, keepdims=True)
        middle = hits.instance[1:-1, 1:-1]
        inside = np.ones_like(middle, dtype=bool)
        for rows, columns in ((slice(0, -2), slice(1, -1)), (slice(2, None), slice(1, -1)),
                              (slice(1, -1), slice(0, -2)), (slice(1, -1), slice(2, None))):  # fmt: skip
            inside &= hits.instance[rows, columns] == middle
            # Not where two faces of one thing meet.
            inside &= (hits.normal[rows, columns] * hits.normal[1:-1, 1:-1]).sum(axis=-1) > 0.95
        assert inside.mean() > 0.8
        cosine = (slope * hits.normal[1:-1, 1:-1]).sum(axis=-1)[inside]
        errors.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    error = np.concatenate(errors)
    assert np.median(error) < 0.005
    assert (error < 1).mean() > 0.992


def test_the_floor_is_a_plane_at_the_camera_s_height_below_it():
    checked = 0
    for number in range(20):
        room, view = view_of(number, (64, 64))
        hits = seen(room, view)
        floor = hits.instance == 1
        points = (hits.depth[..., None] * view.rays())[floor].astype(float)
        if len(points) < 100:
            continue
        up = plain.axes(view.camera)[:, 1]  # the world's y as the camera sees it
        assert points @ up == pytest.approx(np.full(len(points), -view.camera.position[1]), abs=1e-4)
        assert hits.normal[floor] == pytest.approx(np.tile(up, (len(points), 1)), abs=1e-6)
        checked += 1
    assert checked > 10
