"""Edges: the best F-measure of matched contours over thresholds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isonomy.bench.metrics.base import PADDING, Sums
from isonomy.bench.metrics.contours import boundary_map, count, suppress
from isonomy.errors import unknown

HED = 101
UNITS = ("diagonal", "pixels")


class Edges(Sums):
    """``odsF`` in percent: the F-measure at the threshold that is best for the whole set.

    The procedure of SEISM, which ATRC and InvPT are evaluated with: the probability, rounded down to 8 bits;
    non-maximum suppression; at each threshold the pixels above it, thinned, are matched one to one with the thinned
    truth within a tolerance; matched, predicted and actual pixels are added up over the set. F = 2 · matched /
    (predicted + actual), and 0 where that is 0 / 0. A result belongs to its ``nms``, tolerance and number of
    thresholds: report them with it.

    A training's own check can do with fewer thresholds. It runs on the CPU, image by image.

    Args:
        tolerance: The largest distance of a matched pair. 0.0075 of the diagonal for PASCAL-Context, 0.011 for NYUD-v2;
            below one pixel only exact hits count, so give small images a tolerance in pixels.
        unit: Of the tolerance: ``"diagonal"`` of the image, or ``"pixels"``.
        nms: Whether non-maximum suppression comes first and pixels lie above the threshold (SEISM and InvPT); without,
            at or above it (MTL-PyTorch). It also fades the outer five pixels, which in a small image are many.
        thresholds: How many: 101 are SEISM's 0.001, 0.01, 0.02, …, 0.99, 0.999; any other number n is i / (n + 1).
        convert: Take the boundaries of the truth before thinning it, as SEISM does with label maps and with NYUD-v2's
            stored edges, whose lines move by half a pixel in this.
    """

    matched: Tensor
    predicted: Tensor
    actual: Tensor

    def __init__(
        self,
        tolerance: float = 0.0075,
        unit: str = "diagonal",
        nms: bool = True,
        thresholds: int = HED,
        convert: bool = False,
    ) -> None:
        super().__init__()
        if unit not in UNITS:
            raise unknown("unit", unit, UNITS)
        if not 0 < tolerance < float("inf"):
            raise self.error(f"the tolerance has to be positive, not {tolerance}.")
        if thresholds < 1:
            raise self.error(f"there has to be one threshold at least, not {thresholds}.")
        self.tolerance, self.unit, self.nms, self.convert = tolerance, unit, nms, convert
        self.thresholds = _levels(thresholds)
        self.add_sum("matched", thresholds)
        self.add_sum("predicted", thresholds)
        self.add_sum("actual")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            prediction: Logits (B, 1, H, W) at the labels' resolution.
            target: 1 on an edge, 0 elsewhere and 255 in the padding around an image, (B, H, W).
        """
        self.check_labels(target, 3, (0, 1, PADDING))
        self.check(prediction, target, (target.shape[0], 1, *target.shape[1:]))
        images = (255 * prediction[:, 0].double().sigmoid()).floor() / 255
        regions = [self._region(truth) for truth in target]
        for image, truth, (rows, columns) in zip(images, target, regions, strict=True):
            if rows.stop > rows.start:
                self._add(image[rows, columns].cpu().numpy(), truth[rows, columns].cpu().numpy())

    def _region(self, truth: Tensor) -> tuple[slice, slice]:
        """Where the image is, without its padding."""
        inside = truth != PADDING
        ends = []
        for dim in (1, 0):
            occupied = inside.any(dim).nonzero()
            ends.append(slice(int(occupied[0]), int(occupied[-1]) + 1) if len(occupied) else slice(0, 0))
        rows, columns = ends
        if not inside[rows, columns].all():
            raise self.error("255 marks padding around an image, but it is inside one: give those pixels 0 or 1.")
        if min(rows.stop - rows.start, columns.stop - columns.start) == 1:
            raise self.error("an image needs two rows and columns at least.")
        return rows, columns

    def _add(self, image: NDArray[np.float64], truth: NDArray[np.int64]) -> None:
        counts = count(
            suppress(image) if self.nms else image,
            boundary_map(truth) if self.convert else truth == 1,
            self.thresholds,
            inclusive=not self.nms,
            radius=self.tolerance * (float(np.hypot(*image.shape)) if self.unit == "diagonal" else 1.0),
        )
        self.matched += torch.from_numpy(counts.matched).to(self.matched.device)
        self.predicted += torch.from_numpy(counts.predicted).to(self.predicted.device)
        self.actual += counts.actual

    def compute(self) -> dict[str, Tensor]:
        """``odsF``."""
        pixels = self.predicted + self.actual
        return {"odsF": 100 * (2 * self.matched / pixels.clamp(min=1).double()).max()}


def _levels(number: int) -> NDArray[np.float64]:
    if number == HED:
        return np.array([0.001, *(i / 100 for i in range(1, 100)), 0.999])
    return np.arange(1, number + 1) / (number + 1)
