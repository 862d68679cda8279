"""One task's prediction, at the resolution of the maps it is made from.

Predictions are raw: logits for classes, and normals of any length. To make them unit vectors is the loss's and the
metric's business, and the data set resizes predictions to its labels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.backbones.segnet import xavier
from isonomy.bench.backbones.tops import PyramidPool, unit
from isonomy.errors import IsonomyError, unknown


class Head(nn.Module):
    """What all heads have in common.

    Attributes:
        reads: Indices of the backbone's maps that ``forward`` takes: a tensor where it is one, else a list.

    Args:
        channels: Of the maps that it reads.
        outputs: Channels of its prediction.
    """

    reads: ClassVar[tuple[int, ...]] = (-1,)

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__()


def resize(x: Tensor, like: Tensor) -> Tensor:
    """A map (B, C, h, w), bilinearly at the height and width of another."""
    return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def _separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False),
        *unit(inputs, outputs),
    )


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a map seen through five windows at once.

    Args:
        inputs: Channels of the map.
        separable: Whether the dilated convolutions are depthwise ones followed by 1 x 1 ones.
    """

    def __init__(self, inputs: int, separable: bool = False) -> None:
        super().__init__()
        self.branches = nn.ModuleList([unit(inputs, 256)])
        for dilation in (12, 24, 36):
            wide = _separable(inputs, 256, dilation) if separable else unit(inputs, 256, 3, dilation)
            self.branches.append(wide)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), unit(inputs, 256))
        self.project = nn.Sequential(*unit(1280, 256), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 256, H, W)."""
        everywhere = self.pool(x).expand(-1, -1, *x.shape[-2:])
        y: Tensor = self.project(torch.cat([*(branch(x) for branch in self.branches), everywhere], dim=1))
        return y


class ASPPHead(Head):
    """DeepLab V3's head.

    Chen et al., "Rethinking atrous convolution for semantic image segmentation", 2017. This is the network that papers
    on multi-task learning call DeepLabV3+.
    """

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__(channels, outputs)
        self.layers = nn.Sequential(ASPP(channels[-1]), *unit(256, 256, 3), nn.Conv2d(256, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, H, W)."""
        y: Tensor = self.layers(x)
        return y


class ASPPPlusHead(Head):
    """DeepLab V3+'s head: separable convolutions, and a decoder that joins the first stage's map.

    Chen et al., "Encoder-decoder with atrous separable convolution for semantic image segmentation", ECCV 2018.
    """

    reads = (0, -1)

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__(channels, outputs)
        self.aspp = nn.Sequential(ASPP(channels[-1], separable=True), *_separable(256, 256))
        self.low = unit(channels[0], 48)
        self.decoder = nn.Sequential(*_separable(304, 256), nn.Conv2d(256, outputs, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """A fine (B, c, h, w) and a coarse map to (B, outputs, h, w)."""
        fine, coarse = maps
        y: Tensor = self.decoder(torch.cat([resize(self.aspp(coarse), fine), self.low(fine)], dim=1))
        return y


class PSPTail(Head):
    """The part of ``PSPHead`` after its pyramid, for an encoder that ends in ``PyramidPooled``."""

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__(channels, outputs)
        self.layers = nn.Sequential(*unit(channels[-1], 512, 3), nn.Dropout(0.1), nn.Conv2d(512, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, H, W)."""
        y: Tensor = self.layers(x)
        return y


class PSPHead(Head):
    """A pyramid of averages beside the map, and two convolutions.

    Zhao et al., "Pyramid scene parsing network", CVPR 2017.
    """

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__(channels, outputs)
        self.pool = PyramidPool(channels[-1])
        self.tail = PSPTail((self.pool.outputs,), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, H, W)."""
        y: Tensor = self.tail(self.pool(x))
        return y


class HRNetHead(Head):
    """All four maps at the resolution of the finest, and two 1 x 1 convolutions.

    Wang et al., "Deep high-resolution representation learning for visual recognition", TPAMI 2020 (HRNetV2).
    """

    reads = (0, 1, 2, 3)

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__(channels, outputs)
        width = sum(channels)
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, outputs, 1)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, the finest (B, c, h, w), to (B, outputs, h, w)."""
        y: Tensor = self.layers(torch.cat([maps[0], *(resize(x, maps[0]) for x in maps[1:])], dim=1))
        return y


class ViTHead(Head):
    """Two 3 x 3 convolutions and a 1 x 1 one: the preliminary decoder of Ye & Xu, "InvPT", ECCV 2022."""

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__(channels, outputs)
        width = channels[-1]
        self.layers = nn.Sequential(*unit(width, width, 3), *unit(width, 512, 3), nn.Conv2d(512, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, H, W)."""
        y: Tensor = self.layers(x)
        return y


class SegNetHead(Head):
    """Two convolutions with nothing between them: the head of Liu et al., "MTAN", CVPR 2019."""

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__(channels, outputs)
        width = channels[-1]
        self.layers = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, outputs, 1))
        xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, H, W)."""
        y: Tensor = self.layers(x)
        return y


class LinearHead(Head):
    """A linear layer on a vector, or on the average of a map."""

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__(channels, outputs)
        self.linear = nn.Linear(channels[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) or (B, C, H, W) to (B, outputs)."""
        y: Tensor = self.linear(x.flatten(2).mean(dim=2) if x.ndim > 2 else x)
        return y


class ConvHead(Head):
    """One 1 x 1 convolution."""

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__(channels, outputs)
        self.convolution = nn.Conv2d(channels[-1], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, H, W)."""
        y: Tensor = self.convolution(x)
        return y


HEADS: dict[str, type[Head]] = {
    "aspp": ASPPHead,
    "aspp_plus": ASPPPlusHead,
    "psp": PSPHead,
    "psp_tail": PSPTail,
    "hrnet": HRNetHead,
    "vit": ViTHead,
    "segnet": SegNetHead,
    "linear": LinearHead,
    "conv": ConvHead,
}


def make(name: str, channels: tuple[int, ...], outputs: int) -> Head:
    """A head for a backbone.

    Args:
        name: One of ``HEADS``.
        channels: Of all the maps that the backbone gives.
        outputs: Channels of the prediction.

    Raises:
        IsonomyError: For an unknown name, or one that reads more maps than there are.
    """
    if name not in HEADS:
        raise unknown("head", name, HEADS)
    head = HEADS[name]
    if max(head.reads) >= len(channels):
        raise IsonomyError(
            f"The head {name!r} reads {len(head.reads)} maps, and the backbone gives {len(channels)}: use another head "
            "or backbone."
        )
    return head(tuple(channels[index] for index in head.reads), outputs)
