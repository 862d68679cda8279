"""Saliency: the best F-measure over thresholds."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.bench.metrics.base import PADDING, Sums
from isonomy.errors import unknown

BETA2 = 0.3
THRESHOLDS = 19  # 0.05, 0.10, ..., 0.95


class Saliency(Sums):
    """``maxF`` in percent, as InvPT and ATRC define it.

    At each of the thresholds 0.05, 0.10, …, 0.95 pixels of at least this probability are positive; true positives,
    predicted and actual ones are counted over the whole set, F = (1 + β²) P R / (β² P + R) with β² = 0.3, and the
    largest F counts. Where nothing is positive, or no pixel is labelled, F is 0.

    Args:
        compat: ``"invpt"`` for the numbers of InvPT's code, which passes the probability through a second sigmoid, so
            that only five thresholds tell pixels apart.
    """

    hits: Tensor
    predicted: Tensor
    actual: Tensor

    def __init__(self, compat: str | None = None) -> None:
        super().__init__()
        if compat not in (None, "invpt"):
            raise unknown("value of compat", compat, ["invpt"])
        self.compat = compat
        self.add_sum("hits", THRESHOLDS)
        self.add_sum("predicted", THRESHOLDS)
        self.add_sum("actual")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            prediction: Logits (B, 2, H, W) of background and salient, or (B, 1, H, W) of salient, at the labels'
                resolution.
            target: 1 for salient, 0 for background and 255 for neither, (B, H, W).
        """
        self.check_labels(target, 3, (0, 1, PADDING))
        channels = 2 if prediction.dim() == 4 and prediction.shape[1] == 2 else 1
        self.check(prediction, target, (target.shape[0], channels, *target.shape[1:]))
        logits = prediction.double()
        score = (logits[:, 1] - logits[:, 0] if channels == 2 else logits[:, 0]).sigmoid()
        if self.compat == "invpt":
            score = score.sigmoid()
        valid = target != PADDING
        truth, score = target[valid] == 1, score[valid]
        thresholds = torch.arange(1, THRESHOLDS + 1, dtype=torch.float64, device=score.device) / (THRESHOLDS + 1)
        # The number of thresholds that a pixel reaches tells for all of them whether it is positive.
        reached = torch.searchsorted(thresholds, score, right=True)
        self.hits += _at_least(reached[truth])
        self.predicted += _at_least(reached)
        self.actual += truth.sum()

    def compute(self) -> dict[str, Tensor]:
        """``maxF``."""
        # The F-measure in counts, which has no quotient that could be 0 / 0 while anything is positive.
        positive = BETA2 * self.actual.double() + self.predicted
        scores = (1 + BETA2) * self.hits.double() / positive.where(positive > 0, 1.0)
        return {"maxF": 100 * scores.max()}


def _at_least(reached: Tensor) -> Tensor:
    """How many pixels reach each threshold, shape (THRESHOLDS,)."""
    return torch.bincount(reached, minlength=THRESHOLDS + 1).flip(0).cumsum(0).flip(0)[1:]
