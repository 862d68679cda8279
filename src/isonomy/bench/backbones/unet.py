"""A small U-Net, for scenes of 64 x 64 on a laptop's processor.

Ronneberger et al., "U-Net", MICCAI 2015, at a fraction of its width, with batch normalisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isonomy.bench.backbones.base import Backbone
from isonomy.bench.backbones.tops import unit

WIDTHS = (16, 32, 48)


class UNet(Backbone):
    """Three resolutions down and up again. Its one map has 16 channels and the resolution of the image.

    Skips are added, not concatenated, which halves the cost of the finest convolution, the dearest there is. Height and
    width have to be multiples of 4. It takes images as they are.
    """

    channels = (WIDTHS[0],)
    strides = (1,)

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.down1 = unit(3, fine, 3)
        self.down2 = nn.Sequential(nn.MaxPool2d(2), unit(fine, middle, 3), unit(middle, middle, 3))
        self.down3 = nn.Sequential(nn.MaxPool2d(2), unit(middle, coarse, 3), unit(coarse, coarse, 3))
        self.lift2 = _lift(coarse, middle)
        self.up2 = unit(middle, middle, 3)
        self.lift1 = _lift(middle, fine)
        self.up1 = unit(fine, fine, 3)

    def last_layer(self) -> list[nn.Parameter]:
        """The weight of the last convolution."""
        return [self.up1[0].weight]  # type: ignore[list-item]

    def forward(self, x: Tensor) -> list[Tensor]:
        """One map (B, 16, H, W) of images (B, 3, H, W)."""
        # This layout in memory makes narrow convolutions on a processor faster by a third.
        fine = self.down1(x.contiguous(memory_format=torch.channels_last))
        middle = self.down2(fine)
        middle = self.up2(middle + self.lift2(self.down3(middle)))
        return [self.up1(fine + self.lift1(middle))]


def _lift(inputs: int, outputs: int) -> nn.Sequential:
    """To twice the resolution, with the channels of the map there."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.Upsample(scale_factor=2, mode="bilinear"))
