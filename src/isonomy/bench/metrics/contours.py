"""Contours on the pixel grid: from labels, thinned, suppressed beside a ridge, matched.

The procedure of SEISM's boundary measure, on the lines of the Berkeley benchmark (Martin, Fowlkes and Malik, PAMI
2004).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, map_coordinates  # type: ignore[import-untyped]
from scipy.sparse import csr_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import maximum_flow  # type: ignore[import-untyped]
from scipy.spatial import cKDTree  # type: ignore[import-untyped]

Mask = NDArray[np.bool_]
Image = NDArray[np.float64]
Bits = NDArray[np.uint8]

SMOOTHING = 4  # radius of the triangle filter
CONSERVATIVE = 1.01
FADE = 5
MOST_PAIRS = 2_000_000


def boundary_map(labels: NDArray[np.generic]) -> Mask:
    """The pixels whose label is not that of the right, the lower or the lower right neighbour.

    Args:
        labels: Shape (H, W), any values.
    """
    # The last row and column are compared with themselves where there is no neighbour.
    padded = np.pad(labels, ((0, 1), (0, 1)), mode="edge")
    right, lower, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    boundary: Mask = (labels != right) | (labels != lower) | (labels != diagonal)
    return boundary


def suppress(image: Image) -> Image:
    """Non-maximum suppression: zero where the image is higher a pixel away across its ridge, and faded at the border.

    The ridge's normal comes from the second derivatives of the image after a triangle filter of radius 4 (Dollár and
    Zitnick, PAMI 2015). A pixel stays if 1.01 times its value reaches both bilinear samples; the outer 5 pixels fade to
    zero.

    Args:
        image: Shape (H, W), both at least 2, in [0, 1].
    """
    height, width = image.shape
    triangle = np.concatenate([np.arange(1, SMOOTHING + 2), np.arange(SMOOTHING, 0, -1)]) / (SMOOTHING + 1) ** 2
    smooth = convolve1d(convolve1d(image, triangle, axis=0), triangle, axis=1)
    down, right = np.gradient(smooth)
    right_right = np.gradient(right, axis=1)
    down_down, down_right = np.gradient(down)
    angle = np.mod(np.arctan(down_down * np.sign(-down_right) / (right_right + 1e-5)), np.pi)
    rows, columns = np.indices(image.shape)
    kept = np.ones(image.shape, dtype=bool)
    for step in (-1, 1):
        at = [
            np.clip(rows + step * np.sin(angle), 0, height - 1.001),
            np.clip(columns + step * np.cos(angle), 0, width - 1.001),
        ]
        kept &= CONSERVATIVE * image >= map_coordinates(image, at, order=1)
    fade = min(FADE, height // 2, width // 2)
    from_border = [np.minimum(np.arange(size), np.arange(size)[::-1]) for size in image.shape]
    ramps = [np.minimum(distance / fade, 1) for distance in from_border]
    faded: Image = np.where(kept, image, 0) * ramps[0][:, None] * ramps[1]
    return faded


class Counts(NamedTuple):
    """What precision and recall are made of, for each threshold.

    Attributes:
        matched: Pairs of a predicted and a true pixel.
        predicted: Predicted pixels, after thinning.
        actual: True pixels, after thinning; the same for every threshold.
    """

    matched: NDArray[np.int64]
    predicted: NDArray[np.int64]
    actual: int


def count(image: Image, truth: Mask, thresholds: NDArray[np.float64], inclusive: bool, radius: float) -> Counts:
    """Matches an image's contours at every threshold, one pixel to one, as many as can be.

    The published procedure prefers near pairs among the largest matchings; how many there are does not depend on it.

    Args:
        image: Probabilities (H, W).
        truth: Boundaries (H, W).
        thresholds: Ascending.
        inclusive: Whether a pixel at the threshold counts.
        radius: The largest distance of a pair in pixels.
    """
    (actual,) = thin(truth[None])
    masks = np.array([image >= t if inclusive else image > t for t in thresholds])
    # The masks are nested, so those of one size are the same.
    _, first, place = np.unique(masks.sum((1, 2)), return_index=True, return_inverse=True)
    thinned = thin(masks[first])
    matched = _matched(thinned, actual, radius)
    return Counts(matched[place], thinned.sum((1, 2))[place], int(actual.sum()))


def thin(masks: Mask) -> Mask:
    """Lines of one pixel (Guo and Hall, Comm. ACM 1989), until nothing changes.

    All masks are thinned together, each of them in a bit of its own: one by one it would take longer than training.

    Args:
        masks: Shape (N, H, W).
    """
    bits = np.ascontiguousarray(np.moveaxis(np.packbits(masks, axis=0), 0, -1))
    image = np.pad(bits, ((1, 1), (1, 1), (0, 0)))
    # As one row: the neighbours of all pixels are the row, shifted. What is beyond an edge is zero and stays it.
    row, column, _ = image.strides
    flat = image.reshape(-1)
    start, size = row + column, flat.size - 2 * (row + column)
    inner = flat[start : start + size]
    # From the right, against the clock.
    shifts = (column, column - row, -row, -row - column, -column, row - column, row, row + column)
    x = [flat[start + shift :][:size] for shift in shifts]
    changed = True
    while changed:
        before = inner.copy()
        for first in (0, 4):
            inner &= ~_superfluous(x[first:] + x[:first])
        changed = not np.array_equal(before, inner)
    return np.unpackbits(np.moveaxis(image[1:-1, 1:-1], -1, 0), axis=0, count=len(masks)).astype(bool)


def _superfluous(x: list[Bits]) -> Bits:
    """Where a pixel may go in half an iteration, by its eight neighbours."""
    # Whether a run of neighbours begins at one of the four sides, and whether that is so at exactly one.
    begins = [~x[i] & (x[i + 1] | x[(i + 2) % 8]) for i in (0, 2, 4, 6)]
    one_run = ((begins[0] | begins[1]) ^ (begins[2] | begins[3])) & ~(begins[0] & begins[1]) & ~(begins[2] & begins[3])
    # Two or three of four pairs of neighbours, for the way of pairing them that gives fewer.
    pairings = [[x[i] | x[i + turn] for i in (0, 2, 4, 6)] for turn in (1, -1)]
    two = [(a & b) | (c & d) | ((a | b) & (c | d)) for a, b, c, d in pairings]
    four = [a & b & c & d for a, b, c, d in pairings]
    gone: Bits = one_run & two[0] & two[1] & ~(four[0] & four[1]) & ~((x[1] | x[2] | ~x[7]) & x[0])
    return gone


def _matched(predictions: Mask, truth: Mask, radius: float) -> NDArray[np.int64]:
    """The size of a largest matching between the pixels of each prediction and of the truth.

    It is a largest flow of at most one through every pixel. SciPy's ``maximum_bipartite_matching`` takes exponential
    time on contours that run in parallel (scipy/scipy#26147), its ``maximum_flow`` does not.

    Args:
        predictions: Shape (N, H, W).
        truth: Shape (H, W).
        radius: The largest distance of a pair in pixels.
    """
    points, targets = np.argwhere(predictions.any(0)), np.argwhere(truth)
    pairs = cKDTree(points).sparse_distance_matrix(cKDTree(targets), radius, output_type="ndarray")
    rows, columns = points[pairs["i"]].T
    sizes = []
    # Setting a network up takes longer than solving it: one serves several predictions, as many as memory is good for.
    step = max(1, MOST_PAIRS // max(1, len(pairs)))
    for start in range(0, len(predictions), step):
        layers = predictions[start : start + step]
        layer, pair = np.nonzero(layers[:, rows, columns])
        candidates, candidate = np.unique(layer * len(points) + pairs["i"][pair], return_inverse=True)
        trues, true = np.unique(layer * len(targets) + pairs["j"][pair], return_inverse=True)
        from_source = np.arange(len(candidates)) + 1
        to_sink = np.arange(len(trues)) + 1 + len(candidates)
        sink = len(candidates) + len(trues) + 1
        tails = np.concatenate([np.zeros_like(from_source), candidate + 1, to_sink])
        heads = np.concatenate([from_source, true + 1 + len(candidates), np.full_like(to_sink, sink)])
        network = csr_array((np.ones(len(tails), dtype=np.int32), (tails, heads)), shape=(sink + 1, sink + 1))
        used = maximum_flow(network, 0, sink).flow[[0], 1 : len(candidates) + 1].toarray()[0] > 0
        sizes.append(np.bincount(candidates[used] // max(1, len(points)), minlength=len(layers)))
    return np.concatenate(sizes)
