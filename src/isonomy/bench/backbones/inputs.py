"""From images with values in [0, 1] to what a checkpoint was trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isonomy.errors import unknown

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Normalize(nn.Module):
    """Channels less their mean, over their standard deviation.

    Args:
        statistics: Mean and standard deviation of every channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        # Not persistent: a saved network keeps the names that everybody's checkpoints of it have.
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W), normalised."""
        return (x - self.mean) / self.std


def normalizer(normalize: str | None, checkpoint: Statistics) -> nn.Module:
    """What a backbone does to its images first.

    Args:
        normalize: ``"checkpoint"``, ``"imagenet"`` or None for nothing.
        checkpoint: The statistics of the checkpoint that the backbone is usually started from.

    Raises:
        IsonomyError: For anything else.
    """
    if normalize is None:
        return nn.Identity()
    choices = {"checkpoint": checkpoint, "imagenet": IMAGENET}
    if normalize not in choices:
        raise unknown("normalisation", normalize, choices)
    return Normalize(choices[normalize])
