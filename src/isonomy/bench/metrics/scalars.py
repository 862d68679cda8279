"""Classification and regression: accuracy and mean absolute errors."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.bench.metrics.base import Sums


class Accuracy(Sums):
    """``accuracy`` in percent: correct over all of the set, NaN without samples."""

    correct: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("correct")
        self.add_sum("samples")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            prediction: Logits (B, K).
            target: Classes 0..K−1, integers (B,).
        """
        self.check_labels(target, 1)
        if prediction.dim() != 2:
            raise self.error(f"predictions have to be logits (B, K), not {tuple(prediction.shape)}.")
        classes = prediction.shape[1]
        self.check(prediction, target, (len(target), classes))
        if not ((target >= 0) & (target < classes)).all():
            raise self.error(f"the target has classes outside 0..{classes - 1}.")
        self.correct += (prediction.argmax(1) == target).sum()
        self.samples += len(target)

    def compute(self) -> dict[str, Tensor]:
        """``accuracy``."""
        return {"accuracy": 100 * self.correct.double() / self.samples}


class MAE(Sums):
    """``MAE``, the mean of |p − y| over all of the set, in the unit of what is passed; NaN without samples."""

    error_sum: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("error_sum", dtype=torch.float64)
        self.add_sum("samples")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            prediction: Values (B,), in physical units.
            target: Values (B,).
        """
        self.check_values(prediction, target, "B")
        if not target.isfinite().all():
            raise self.error("a target is not finite: leave out samples that have no label.")
        self.error_sum += (prediction.double() - target.double()).abs().sum()
        self.samples += len(target)

    def compute(self) -> dict[str, Tensor]:
        """``MAE``."""
        return {"MAE": self.error_sum / self.samples}


class L1(Sums):
    """``L1``, the mean absolute error over labelled pixels and their components (IMTL's instances and disparity).

    A pixel has no label where a component of its target is NaN: no number is lost to a mark, as 250 would be among
    offsets in pixels. Without any labelled pixel it is NaN.
    """

    error_sum: Tensor
    entries: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("error_sum", dtype=torch.float64)
        self.add_sum("entries")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            prediction: Values (B, C, H, W) at the labels' resolution.
            target: Values (B, C, H, W), NaN where there is no label.
        """
        self.check_values(prediction, target, "B", "C", "H", "W")
        if target.isinf().any():
            raise self.error("a target is infinite: let NaN mark what has no label.")
        valid = ~target.isnan().any(1, keepdim=True).expand_as(target)
        self.error_sum += (prediction[valid].double() - target[valid].double()).abs().sum()
        self.entries += valid.sum()

    def compute(self) -> dict[str, Tensor]:
        """``L1``."""
        return {"L1": self.error_sum / self.entries}
