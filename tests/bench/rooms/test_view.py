import math

import numpy as np
import pytest

from isonomy.bench.data.rooms.scene import furnish, turned
from isonomy.bench.data.rooms.view import Camera, look, rectangles, stand
from tests.bench.rooms import plain

TURNED = Camera((0.3, 1.4, 1.2), 0.7, -0.3, math.tan(math.radians(28)))


def test_a_turn_takes_the_second_axis_to_the_first():
    assert turned(0.0, 1.0, math.pi / 2) == pytest.approx((1, 0))
    assert turned(1.0, 0.0, math.pi / 2) == pytest.approx((0, -1))
    x, z = turned(np.float32([1, 0]), np.float32([0, 1]), 0.3)
    assert x.dtype == z.dtype == np.float32


def test_a_level_camera_looks_along_minus_z_with_the_first_row_on_top():
    view = look(plain.LEVEL, (65, 81))
    x, y, z = (np.broadcast_to(w, (65, 81)) for w in view.directions(0.0))
    assert (x[32, 40], y[32, 40]) == (0, 0)
    assert (z == -1).all()
    assert (np.diff(x, axis=1) > 0).all()
    assert (np.diff(y, axis=0) < 0).all()
    # Half of the vertical field of view is 30 degrees, to the outer side of the last pixel; pixels are square.
    assert y[0, 0] == pytest.approx(math.tan(math.radians(30)) * 64 / 65)
    assert x[0, 1] - x[0, 0] == pytest.approx(y[0, 0] - y[1, 0], rel=1e-4)


@pytest.mark.parametrize("camera", [plain.LEVEL, TURNED])
def test_rays_in_the_world_are_those_of_the_camera_turned(camera):
    view = look(camera, (64, 96))
    world = np.stack(np.broadcast_arrays(*view.directions(0.0)), axis=-1).astype(float)
    assert world == pytest.approx(view.rays() @ plain.axes(camera), abs=1e-6)
    assert view.seen(world) == pytest.approx(view.rays(), abs=1e-6)


def test_rays_in_a_turned_frame_have_the_same_length_and_the_angle_between():
    view = look(TURNED, (64, 64))
    x, y, z = (np.broadcast_to(w, (64, 64)) for w in view.directions(0.0))
    a, b, c = (np.broadcast_to(w, (64, 64)) for w in view.directions(0.4))
    assert b == pytest.approx(y)
    assert np.hypot(a, c) == pytest.approx(np.hypot(x, z), rel=1e-5)
    assert (z * a - x * c) / (x * x + z * z) == pytest.approx(np.sin(-0.4), abs=1e-5)


def test_a_rectangle_holds_the_projection_of_a_box():
    room = plain.room((False, (0.5, 1.5, -1.0), (0.2, 0.3, 0.1), 0.0))
    [(k, (rows, columns))] = rectangles(look(plain.LEVEL, (90, 120)), room.primitives)
    assert k == 0
    # Its front is at a depth of 2.7, and a metre there is 45 / (2.7 tan 30) = 28.9 pixels.
    scale = 45 / (2.7 * math.tan(math.radians(30)))
    assert rows.start == pytest.approx(45 - 0.3 * scale, abs=2)
    assert rows.stop == pytest.approx(45 + 0.3 * scale, abs=2)
    assert columns.start == pytest.approx(60 + 0.3 * 2.7 / 2.9 * scale, abs=2)
    assert columns.stop == pytest.approx(60 + 0.7 * scale, abs=2)


def test_what_is_behind_or_beside_is_left_out_and_what_reaches_behind_gets_the_whole_screen():
    size = (0.1, 0.1, 0.1)
    room = plain.room(
        (False, (0.0, 1.5, 1.95), size, 0.0),  # behind
        (False, (1.9, 1.5, 1.5), size, 0.0),  # beside
        (False, (0.0, 0.1, 0.0), (0.5, 0.1, 1.9), 0.0),  # from before the camera to behind it
        (True, (0.0, 1.5, 0.0), size, 0.0),
    )
    found = dict(rectangles(look(plain.LEVEL, (64, 64)), room.primitives))
    assert list(found) == [2, 3]  # the nearest first
    assert found[2] == (slice(0, 64), slice(0, 64))
    assert found[3][0].stop - found[3][0].start < 20


def test_cameras_stand_in_the_room_at_its_end_and_look_into_it():
    angles = []
    for number in range(200):
        room = furnish(number)
        camera = stand(room, np.random.default_rng(number))
        (x, y, z), (width, _, depth) = camera.position, room.size
        assert abs(x) < 0.36 * width
        assert 1.1 <= y <= 1.8
        assert depth / 2 - 0.3 <= z <= depth / 2 - 0.1
        assert -0.42 <= camera.pitch <= -0.08
        assert 25 <= math.degrees(math.atan(camera.tangent)) <= 36
        towards = math.atan2(x - room.middle[0], z - room.middle[1])
        angles.append(camera.yaw - towards)
    assert max(map(abs, angles)) <= 0.3
    assert min(angles) < -0.25
    assert max(angles) > 0.25
