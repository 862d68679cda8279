"""What every network of the bench gives for a batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """Predictions, and what balancing and training need besides.

    Attributes:
        feature: The shared feature that every head reads, or a list of such features; None for a network that has one
            tensor a task, between which inner products would mean nothing.
        predictions: For each task, at the network's own resolution; the data set resizes them to its labels.
        aux: Further predictions, each judged by its task's own loss (deep supervision), at any resolution.
        penalty: A regulariser, 0-d, which is added to the balanced loss; None for a network without one.
    """

    feature: Tensor | list[Tensor] | None
    predictions: dict[str, Tensor]
    aux: tuple[dict[str, Tensor], ...] = ()
    penalty: Tensor | None = None
