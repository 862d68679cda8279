import networkx as nx
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.morphology import thin

from isonomy.bench.metrics import Edges, contours
from isonomy.bench.metrics.contours import boundary_map, count, suppress
from isonomy.errors import IsonomyError


def judged(probability, target, **options):
    metric = Edges(**{"nms": False, "unit": "pixels", "tolerance": 1.5, **options})
    probability = torch.as_tensor(np.array(probability), dtype=torch.float64)
    metric.update(probability.clip(1e-9, 1 - 1e-9).logit()[:, None], torch.as_tensor(np.array(target)).long())
    return float(metric.compute()["odsF"])


def line(column, size=24):
    image = np.zeros((1, size, size), dtype=np.int64)
    image[0, :, column] = 1
    return image


def regions(random, height, width, number=5):
    labels = np.zeros((height, width), dtype=np.int64)
    for i in range(number):
        (top, bottom), (left, right) = np.sort(random.integers(0, height, 2)), np.sort(random.integers(0, width, 2))
        labels[top:bottom, left:right] = i + 1
    return labels


def scene(seed, height=18, width=22):
    """A noisy, blurred guess of the boundaries of some rectangles."""
    random = np.random.default_rng(seed)
    truth = boundary_map(regions(random, height, width))
    guess = gaussian_filter(np.roll(truth, 1, axis=1).astype(float), 0.8) + 0.3 * random.random((height, width))
    return guess / guess.max(), truth


def largest_matching(prediction, truth, radius):
    graph = nx.Graph()
    predicted, actual = [[tuple(map(int, p)) for p in np.argwhere(mask)] for mask in (prediction, truth)]
    graph.add_nodes_from(("p", *p) for p in predicted)
    for p in predicted:
        for a in actual:
            if (p[0] - a[0]) ** 2 + (p[1] - a[1]) ** 2 <= radius**2:
                graph.add_edge(("p", *p), ("a", *a))
    return len(nx.bipartite.hopcroft_karp_matching(graph, [("p", *p) for p in predicted])) // 2


@pytest.mark.parametrize(("number", "size"), [(1, (2, 3)), (64, (17, 5)), (130, (20, 31))])
def test_many_masks_are_thinned_as_each_alone(number, size):
    random = np.random.default_rng(number)
    blobs = gaussian_filter(random.random((number, *size)), (0, 2, 2))
    dust = random.random((number, *size)) < random.random((number, 1, 1))
    for masks in (blobs > np.median(blobs), dust, np.ones((number, *size), bool), np.zeros((number, *size), bool)):
        np.testing.assert_array_equal(contours.thin(masks), [thin(mask) for mask in masks])


@pytest.mark.parametrize("radius", [1, 2**0.5, 1.5, 3.2])
@pytest.mark.parametrize("inclusive", [False, True])
def test_counts_against_a_search_pixel_by_pixel(radius, inclusive):
    image, truth = scene(1)
    image = np.round(image, 2)
    thresholds = np.array([0.1, 0.25, 0.4, 0.401, 0.7, 0.99, 1.5])
    counts = count(image, truth, thresholds, inclusive, radius)
    actual = thin(truth)
    assert counts.actual == actual.sum()
    for i, threshold in enumerate(thresholds):
        prediction = thin(image >= threshold if inclusive else image > threshold)
        assert counts.predicted[i] == prediction.sum()
        assert counts.matched[i] == largest_matching(prediction, actual, radius)
    assert counts.matched[0] > counts.matched[-1] == 0


def test_counts_do_not_depend_on_how_many_share_a_network(monkeypatch):
    image, truth = scene(2)
    thresholds = np.arange(1, 20) / 20
    whole = count(image, truth, thresholds, False, 2)
    monkeypatch.setattr("isonomy.bench.metrics.contours.MOST_PAIRS", 1)
    for ours, theirs in zip(count(image, truth, thresholds, False, 2), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_procedure_against_a_loop():
    images, truths = zip(*(scene(seed) for seed in range(3)), strict=True)
    found = []
    for threshold in (0.25, 0.5, 0.75):
        matched = predicted = actual = 0
        for image, truth in zip(images, truths, strict=True):
            stored = np.floor(255 * image) / 255
            prediction, lines = thin(stored >= threshold), thin(truth)
            matched += largest_matching(prediction, lines, 0.06 * np.hypot(18, 22))
            predicted, actual = predicted + prediction.sum(), actual + lines.sum()
        precision, recall = matched / predicted, matched / actual
        found.append(200 * precision * recall / (precision + recall))
    images = np.clip(images, 0.001, 0.999)
    value = judged(images, truths, thresholds=3, tolerance=0.06, unit="diagonal")
    assert value == pytest.approx(max(found), rel=1e-12)
    each = zip(images, truths, strict=True)
    per_image = [judged([i], [t], thresholds=3, tolerance=0.06, unit="diagonal") for i, t in each]
    assert value != pytest.approx(np.mean(per_image))  # one threshold for the set, one quotient of sums


@pytest.mark.parametrize(
    ("shift", "tolerance", "expected"), [(0, 0.5, 100), (1, 0.99, 0), (1, 1, 100), (2, 1.99, 0), (2, 2, 100)]
)
def test_a_shifted_line_counts_up_to_the_tolerance(shift, tolerance, expected):
    assert judged(0.9 * line(10 + shift), line(10), tolerance=tolerance) == expected


def test_a_tolerance_of_the_diagonal():
    # The diagonal of 24 x 24 is 33.9 pixels.
    for fraction, expected in ((2 / 34, 0), (2 / 33.9, 100)):
        assert judged(0.9 * line(12), line(10), tolerance=fraction, unit="diagonal") == expected
    assert Edges().tolerance == 0.0075
    assert Edges().nms


def test_a_true_pixel_is_matched_once():
    both = np.maximum(line(9), line(11))
    # Twice as many predicted as true pixels: P = 1/2, R = 1.
    assert judged(0.9 * both, line(10), tolerance=1) == pytest.approx(100 * 2 / 3)
    assert judged(0.9 * line(10), both, tolerance=1) == pytest.approx(100 * 2 / 3)


def test_the_best_threshold_is_chosen():
    image = np.where(line(10) == 1, 0.8, np.where(line(18) == 1, 0.3, 0.05))
    assert judged(image, line(10)) == 100  # between 0.3 and 0.8 the wrong line is gone
    assert judged(image, line(10), thresholds=3) == 100
    assert judged(image, line(10), thresholds=1) == 100
    assert judged(np.where(line(10) == 1, 0.45, image / 2), line(10), thresholds=1) == 0  # nothing reaches 0.5


def test_nothing_to_find_or_nothing_found_is_zero():
    assert judged(0.9 * line(10), 0 * line(10)) == 0
    assert judged(0 * line(10), line(10)) == 0
    assert judged(0 * line(10), 0 * line(10)) == 0


def test_padding_is_cut_off():
    image, truth = scene(3)
    padded = np.pad(truth.astype(np.int64), ((3, 2), (0, 4)), constant_values=255)
    guess = np.pad(image, ((3, 2), (0, 4)), constant_values=0.7)
    for options in ({}, {"nms": True, "tolerance": 0.06, "unit": "diagonal"}, {"convert": True}):
        expected = judged([np.clip(image, 0.001, 0.999)], [truth], **options)
        assert judged([np.clip(guess, 0.001, 0.999)], [padded], **options) == expected > 0
    padded[8, 8] = 255
    with pytest.raises(IsonomyError, match="Edges: 255 marks padding around an image, but it is inside one"):
        judged([guess], [padded])
    with pytest.raises(IsonomyError, match="two rows and columns"):
        judged(np.full((1, 1, 9), 0.5), np.ones((1, 1, 9)))


def test_a_boundary_is_where_the_right_the_lower_or_the_diagonal_neighbour_differs():
    labels = regions(np.random.default_rng(5), 9, 11)
    found = boundary_map(labels)
    for y in range(9):
        for x in range(11):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            inside = [labels[v] for v in neighbours if v[0] < 9 and v[1] < 11]
            assert found[y, x] == any(label != labels[y, x] for label in inside)
    assert boundary_map(np.array([[1, 1, 2], [1, 1, 2]])).tolist() == [[False, True, False]] * 2


def test_converting_a_line_keeps_one_line():
    # The line of column 10 has boundaries in columns 9 and 10, which are thinned to one line.
    assert thin(boundary_map(line(10)[0])).sum(1).max() == 1
    assert judged(0.9 * line(10), line(10), convert=True, tolerance=1) > 95
    assert judged(0.9 * line(10), line(10), convert=False, tolerance=0.5) == 100


def test_thinning_keeps_lines_and_their_connections():
    from scipy.ndimage import label

    for seed in range(4):
        thick = gaussian_filter(boundary_map(regions(np.random.default_rng(seed), 20, 20)).astype(float), 1) > 0.2
        lines = thin(thick)
        assert not (lines & ~thick).any()
        assert label(lines, np.ones((3, 3)))[1] == label(thick, np.ones((3, 3)))[1]
        np.testing.assert_array_equal(thin(lines), lines)
        assert not (lines[:-1, :-1] & lines[1:, :-1] & lines[:-1, 1:] & lines[1:, 1:]).any()


def suppressed_by_a_loop(image):
    height, width = image.shape

    def smooth(line):
        padded = np.concatenate([line[:4][::-1], line, line[-4:][::-1]])
        return np.array([sum((5 - abs(d)) / 25 * padded[i + 4 + d] for d in range(-4, 5)) for i in range(len(line))])

    def slope(line):
        inner = [(line[i + 1] - line[i - 1]) / 2 for i in range(1, len(line) - 1)]
        return np.array([line[1] - line[0], *inner, line[-1] - line[-2]])

    blurred = np.apply_along_axis(smooth, 0, np.apply_along_axis(smooth, 1, image))
    oy, ox = np.apply_along_axis(slope, 0, blurred), np.apply_along_axis(slope, 1, blurred)
    oxx, oxy, oyy = (np.apply_along_axis(slope, axis, o) for axis, o in ((1, ox), (1, oy), (0, oy)))

    def sample(y, x):
        y, x = min(max(y, 0), height - 1.001), min(max(x, 0), width - 1.001)
        top, left = int(y), int(x)
        dy, dx = y - top, x - left
        upper = (1 - dx) * image[top, left] + dx * image[top, left + 1]
        lower = (1 - dx) * image[top + 1, left] + dx * image[top + 1, left + 1]
        return (1 - dy) * upper + dy * lower

    result = image.copy()
    for y in range(height):
        for x in range(width):
            theta = np.arctan(oyy[y, x] * np.sign(-oxy[y, x]) / (oxx[y, x] + 1e-5)) % np.pi
            for d in (-1, 1):
                if 1.01 * image[y, x] < sample(y + d * np.sin(theta), x + d * np.cos(theta)):
                    result[y, x] = 0
            for distance in (y, height - 1 - y, x, width - 1 - x):
                result[y, x] *= min(distance / 5, 1)
    return result


@pytest.mark.parametrize("seed", range(3))
def test_suppression_against_a_loop(seed):
    image, _ = scene(seed)
    found = suppress(image)
    np.testing.assert_allclose(found, suppressed_by_a_loop(image), atol=1e-12)
    assert 0.1 < (found > 0).mean() < 0.7


def test_suppression_keeps_the_ridge_alone():
    rows, columns = np.indices((40, 40))
    for across in (columns - 20, (columns + rows - 40) / 2**0.5, (columns - rows) / 2**0.5):
        found = suppress(np.exp(-((across / 2) ** 2)))
        inner = found[8:-8, 8:-8] > 0
        assert inner[np.abs(across[8:-8, 8:-8]) < 0.3].all()
        assert not inner[(np.abs(across[8:-8, 8:-8]) > 1) & (np.abs(across[8:-8, 8:-8]) < 3)].any()
        assert found[0].max() == found[-1].max() == found[:, 0].max() == found[:, -1].max() == 0


def test_suppression_finds_the_ridge_of_a_lopsided_prediction():
    rows, columns = np.indices((40, 60))
    across = columns - 25
    profile = np.exp(-(np.where(across < 0, across / 1.5, across / 8) ** 2))
    guess = np.clip((0.15 + rows / 50) * profile, 0.001, 0.999)[None]
    truth = (across == 0).astype(np.int64)[None]
    # No threshold has the middle of the mask on the ridge, where that is both high and low.
    assert judged(guess, truth, nms=False, tolerance=1) < 50
    assert judged(guess, truth, nms=True, tolerance=1) > 90


def test_thresholds():
    assert Edges().thresholds[[0, 1, 2, -2, -1]].tolist() == [0.001, 0.01, 0.02, 0.99, 0.999]
    assert len(Edges().thresholds) == 101
    np.testing.assert_allclose(Edges(thresholds=99).thresholds, np.arange(1, 100) / 100)


def test_parallel_contours_take_no_exponential_time():
    # SciPy's maximum_bipartite_matching does not come back from the first of these thresholds within a minute.
    random = np.random.default_rng(0)
    truth = boundary_map(regions(random, 160, 200, 12))
    guess = gaussian_filter(truth.astype(float), 0.8)
    guess = guess / guess.max() + 0.1 * random.random(guess.shape)
    value = judged(np.clip(guess[None], 0.001, 0.999), truth[None], thresholds=9, tolerance=7.7)
    assert 90 < value < 100


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(IsonomyError, match="did you mean 'pixels'"):
        Edges(1.5, "pixel")
    with pytest.raises(IsonomyError, match="tolerance has to be positive"):
        Edges(0)
    with pytest.raises(IsonomyError, match="one threshold at least"):
        Edges(thresholds=0)
    with pytest.raises(IsonomyError, match="0, 1, 255 alone"):
        judged(0.9 * line(3), 3 * line(3))
