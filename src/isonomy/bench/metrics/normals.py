"""Surface normals: angles to the true direction."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.bench.metrics.base import Sums

WITHIN = (11.25, 22.5, 30.0)
BINS_PER_DEGREE = 100


class Normals(Sums):
    """Angles between predicted and true normals, over every labelled pixel of the set.

    ``mean`` and ``median`` in degrees, ``mErr`` (another name of the mean), ``11.25``, ``22.5`` and ``30``: the
    percentage of pixels whose angle is smaller, and ``cosine``, the mean of ⟨p, g⟩. Both vectors are made unit; the
    angle is 2 atan2(‖p − g‖, ‖p + g‖), which keeps its digits where the arc cosine loses them. A prediction of zero is
    at 90°. The median comes from a histogram with bins of 0.01° and is right to half a bin. Without any labelled pixel
    all are NaN.
    """

    angles: Tensor
    cosines: Tensor
    within: Tensor
    histogram: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("angles", dtype=torch.float64)
        self.add_sum("cosines", dtype=torch.float64)
        self.add_sum("within", len(WITHIN))
        self.add_sum("histogram", 180 * BINS_PER_DEGREE)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            prediction: Directions (B, 3, H, W) at the labels' resolution, of any length.
            target: Unit vectors (B, 3, H, W); a zero vector where there is no label.
        """
        self.check_values(prediction, target, "B", 3, "H", "W")
        valid = (target != 0).any(1)
        truth = target.movedim(1, -1)[valid].double()
        guess = prediction.movedim(1, -1)[valid].double()
        length = truth.norm(dim=1, keepdim=True)
        if not ((length - 1).abs() < 0.5).all():
            raise self.error("a true normal is far from unit length: let zero vectors mark what has no label.")
        truth = truth / length
        guess = torch.nn.functional.normalize(guess, dim=1)
        angle = torch.rad2deg(2 * torch.atan2((guess - truth).norm(dim=1), (guess + truth).norm(dim=1)))
        self.angles += angle.sum()
        self.cosines += (guess * truth).sum()
        self.within += (angle[:, None] < angle.new_tensor(WITHIN)).sum(0)
        bins = (angle * BINS_PER_DEGREE).long().clamp(max=len(self.histogram) - 1)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram))

    def _median(self) -> Tensor:
        """Of an even number of angles, the middle between the two in the middle."""
        below = self.histogram.cumsum(0)
        count = below[-1]
        if count == 0:
            return torch.full_like(self.angles, torch.nan)
        middle = torch.stack([(count - 1) // 2, count // 2])
        return (torch.searchsorted(below, middle, right=True) + 0.5).double().mean() / BINS_PER_DEGREE

    def compute(self) -> dict[str, Tensor]:
        """``mean``, ``median``, ``11.25``, ``22.5``, ``30``, ``mErr`` and ``cosine``."""
        count = self.histogram.sum()
        mean = self.angles / count
        shares = {f"{limit:g}": 100 * share for limit, share in zip(WITHIN, self.within.double() / count, strict=True)}
        return {"mean": mean, "median": self._median(), **shares, "mErr": mean, "cosine": self.cosines / count}
