import math

import numpy as np
import pytest

from isonomy.bench.data.rooms.noise import noisy
from isonomy.bench.data.rooms.sample import Sample, generate


@pytest.fixture(scope="module")
def clean():
    return generate(1, (96, 128))


def bare(label, depth=2.0):
    """A sample with these labels, one depth, and normals to the viewer."""
    size = label.shape
    mask = np.zeros(size, dtype=np.uint8)
    normal = np.zeros((*size, 3), dtype=np.float32)
    normal[..., 2] = 1
    distance = np.full((*size, 1), depth, dtype=np.float32)
    return Sample(np.zeros_like(normal), label.astype(np.int8), distance, normal, mask, mask, mask, mask)


def test_noise_depends_on_the_index_and_the_seed_alone(clean):
    before = [array.copy() for array in clean]
    first = noisy(clean, 3, 0)
    for again in (noisy(clean, 3, 0), noisy(clean._replace(image=clean.image / 2), 3, 0)):
        for name in ("label", "depth", "normal"):
            assert (getattr(first, name) == getattr(again, name)).all()
    for other in (noisy(clean, 4, 0), noisy(clean, 3, 1)):
        for name in ("label", "depth", "normal"):
            assert (getattr(first, name) != getattr(other, name)).any()
    for array, copy in zip(clean, before, strict=True):
        assert (array == copy).all()


def test_types_stay_and_so_do_the_image_and_the_other_labels(clean):
    first = noisy(clean, 0, 0)
    for name, array in clean._asdict().items():
        assert getattr(first, name).dtype == array.dtype
        assert getattr(first, name).shape == array.shape
        if name not in ("label", "depth", "normal"):
            assert getattr(first, name) is array


def test_holes_stay_and_nothing_else_becomes_one(clean):
    first = noisy(clean, 0, 0)
    assert ((first.depth == 0) == (clean.depth == 0)).all()
    assert ((first.normal == 0).all(-1) == (clean.normal == 0).all(-1)).all()
    near = noisy(bare(np.zeros((64, 64)), depth=0.06), 0, 0)
    assert near.depth.min() == np.float32(0.05)  # without a bound a fifth would be behind the camera
    unlabelled = bare(np.full((64, 64), -1))
    assert (noisy(unlabelled, 0, 0).label == -1).all()


@pytest.mark.parametrize(("classes", "spoilt"), [(2, 2), (5, 5), (9, 5)])
def test_five_classes_get_half_of_their_pixels_wrong(classes, spoilt):
    label = np.arange(130 * 130).reshape(130, 130) % classes
    for index in range(20):
        found = noisy(bare(label), index, 0).label
        changed = found != label
        rates = np.array([changed[label == k].mean() for k in range(classes)])
        assert (rates > 0).sum() == spoilt
        # Of at least 1877 pixels half; five standard deviations are 0.06.
        assert rates[rates > 0] == pytest.approx(np.full(spoilt, 0.5), abs=0.06)


def test_every_class_is_spoilt_as_often():
    label = np.arange(64 * 64).reshape(64, 64) % 10
    times = np.zeros(10)
    for index in range(200):
        found = noisy(bare(label), index, 0).label
        times[np.unique(label[found != label])] += 1
    # Binomial, 200 times one half: four standard deviations are 28.
    assert times == pytest.approx(np.full(10, 100), abs=29)


def test_a_wrong_class_is_any_of_the_other_twelve():
    found = noisy(bare(np.full((400, 400), 4)), 0, 0).label
    wrong = np.bincount(found[found != 4], minlength=13)
    assert wrong[4] == 0
    share = wrong[np.arange(13) != 4] / wrong.sum()
    # Of about 80000; five standard deviations are 0.005.
    assert share == pytest.approx(np.full(12, 1 / 12), abs=0.005)


@pytest.mark.parametrize("depth", [2.0, 6.0])
def test_the_depth_s_noise_is_ten_centimetres_and_five_percent(depth):
    error = noisy(bare(np.zeros((400, 400)), depth), 0, 0).depth.astype(float) - depth
    sigma = 0.1 + 0.05 * depth
    assert error.mean() == pytest.approx(0, abs=5 * sigma / 400)
    assert error.std() == pytest.approx(sigma, rel=0.01)
    assert (error > sigma).mean() == pytest.approx(0.1587, abs=0.005)


def test_the_normal_s_noise_is_fifteen_degrees_each_way():
    normal = noisy(bare(np.zeros((400, 400))), 0, 0).normal.astype(float)
    assert np.abs(np.linalg.norm(normal, axis=-1) - 1).max() < 1e-6
    x, y, z = np.moveaxis(normal, -1, 0)
    # The length is lost, the ratio of two components is not: it is that of unit vectors with 15 degrees added.
    draws = math.radians(15) * np.random.default_rng(0).standard_normal((200_000, 3)) + [0, 0, 1]
    for component in (x, y):
        assert (component / z).mean() == pytest.approx(0, abs=0.01)
        assert np.median(np.abs(component / z)) == pytest.approx(np.median(np.abs(draws[:, 0] / draws[:, 2])), rel=0.02)
    assert np.corrcoef(x.ravel(), y.ravel())[0, 1] == pytest.approx(0, abs=0.02)


def test_the_tasks_noises_have_nothing_to_do_with_each_other():
    first = noisy(bare(np.full((200, 200), 4)), 0, 0)
    wrong, depth, x = (first.label != 4).ravel(), first.depth.ravel(), first.normal[..., 0].ravel()
    for a, b in ((wrong, depth), (wrong, x), (depth, x)):
        assert np.corrcoef(a, b)[0, 1] == pytest.approx(0, abs=0.025)
