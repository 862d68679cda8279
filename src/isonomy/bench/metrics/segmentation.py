"""Segmentation: intersection over union and pixel accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.bench.metrics.base import Sums
from isonomy.errors import unknown

ABSENT = ("skip", "nan", "zero")


class Segmentation(Sums):
    """``mIoU`` and ``PAcc`` in percent, from one confusion matrix over the whole set.

    With M (rows truth, columns prediction) over every pixel whose label is one of the classes:
    IoU_c = M_cc / (Σ row c + Σ column c − M_cc), mIoU their mean; PAcc = trace(M) / Σ M, the accuracy over pixels
    (DB-MTL's paper calls this number class-wise). Labels outside 0..K−1, such as −1 and 255, are not judged. Without
    any labelled pixel both are NaN.

    Args:
        classes: K, the background included where it has a label.
        absent: What becomes of a class that is in neither the truth nor the prediction: ``"skip"`` leaves it out of the
            mean, ``"nan"`` makes the mean NaN (MTAN and LibMTL), ``"zero"`` counts it as 0 (InvPT and ATRC).
        legacy_mtan: mIoU as MTAN's code had it until November 2020: for each image the mean over the classes that are
            in its truth or prediction, then the mean over images. Predictions on unlabelled pixels count there.

    Attributes:
        absent_classes: How many classes the last ``compute()`` found to be absent.
    """

    confusion: Tensor
    image_iou: Tensor
    images: Tensor

    def __init__(self, classes: int, absent: str = "skip", legacy_mtan: bool = False) -> None:
        super().__init__()
        if absent not in ABSENT:
            raise unknown("value of absent", absent, ABSENT)
        if legacy_mtan and absent != "skip":
            raise self.error("legacy_mtan leaves absent classes out image by image: do without absent.")
        if classes < 2:
            raise self.error(f"there have to be two classes at least, not {classes}.")
        self.classes, self.absent, self.legacy_mtan = classes, absent, legacy_mtan
        self.absent_classes = 0
        self.add_sum("confusion", classes, classes)
        self.add_sum("image_iou", dtype=torch.float64)
        self.add_sum("images")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds a batch.

        Args:
            prediction: Logits (B, K, H, W) at the labels' resolution.
            target: Labels (B, H, W), integers.
        """
        self.check_labels(target, 3)
        batch, height, width = target.shape
        self.check(prediction, target, (batch, self.classes, height, width))
        # Unlabelled pixels are a row of their own, which the confusion matrix leaves out.
        truth = target.long().where((target >= 0) & (target < self.classes), self.classes)
        image = torch.arange(batch, device=target.device)[:, None, None]
        cell = (image * (self.classes + 1) + truth) * self.classes + prediction.argmax(1)
        counts = torch.bincount(cell.flatten(), minlength=batch * (self.classes + 1) * self.classes)
        counts = counts.view(batch, self.classes + 1, self.classes)
        self.confusion += counts[:, :-1].sum(0)
        if self.legacy_mtan:
            both = counts.diagonal(dim1=1, dim2=2).double()
            either = counts[:, :-1].sum(2) + counts.sum(1) - both
            self.image_iou += (both / either).nanmean(1).sum()
            self.images += batch

    def compute(self) -> dict[str, Tensor]:
        """``mIoU`` and ``PAcc``."""
        matrix = self.confusion.double()
        both = matrix.diagonal()
        either = matrix.sum(0) + matrix.sum(1) - both
        self.absent_classes = int((either == 0).sum())
        if self.legacy_mtan:
            mean = self.image_iou / self.images
        else:
            iou = both / either  # NaN for an absent class
            mean = {"skip": iou.nanmean(), "nan": iou.mean(), "zero": iou.nan_to_num(0).mean()}[self.absent]
        return {"mIoU": 100 * mean, "PAcc": 100 * both.sum() / matrix.sum()}
