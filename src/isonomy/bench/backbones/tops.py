"""What a shared encoder may have on top of its backbone, and the unit that most heads are built of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.backbones.base import Backbone
from isonomy.bench.backbones.resnet import resnet18, resnet50
from isonomy.errors import IsonomyError


def unit(inputs: int, outputs: int, size: int = 1, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps the resolution, batch normalisation, ReLU."""
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class PyramidPool(nn.Module):
    """A map beside its averages over 1, 4, 9 and 36 windows, each with a quarter of its channels.

    Zhao et al., "Pyramid scene parsing network", CVPR 2017. A batch of one image cannot train it: the batch
    normalisation of the single window needs two values.

    Attributes:
        outputs: Channels that go out: twice as many as come in.

    Args:
        inputs: Channels of the map.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.outputs = 2 * inputs
        self.levels = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), unit(inputs, inputs // 4)) for bins in (1, 2, 3, 6)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2 C, H, W)."""
        size = x.shape[-2:]
        levels = (functional.interpolate(level(x), size, mode="bilinear") for level in self.levels)
        return torch.cat([x, *levels], dim=1)


class PyramidPooled(Backbone):
    """A backbone whose last map goes through a ``PyramidPool`` that all tasks share; heads are then ``psp_tail``.

    Args:
        backbone: The backbone.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = PyramidPool(backbone.channels[-1])
        self.channels = (*backbone.channels[:-1], self.pool.outputs)
        self.strides = backbone.strides

    def last_layer(self) -> list[nn.Parameter]:
        """The pyramid's convolutions."""
        return [parameter for parameter in self.pool.parameters() if parameter.ndim == 4]

    def forward(self, x: Tensor) -> list[Tensor]:
        """The backbone's maps, the last one with twice its channels."""
        *maps, last = self.backbone(x)
        return [*maps, self.pool(last)]


class Pooled(Backbone):
    """A backbone whose last map is averaged to one vector an image; heads are then ``linear``.

    Attributes:
        strides: Empty: a vector has none.

    Args:
        backbone: The backbone.
        hidden: Width of a linear layer with batch normalisation, ReLU and dropout 0.5 behind the average; 0 for none.
            It is the trunk that codes for Office-31 and Office-Home share, with 512.

    Raises:
        IsonomyError: The width is negative.
    """

    def __init__(self, backbone: Backbone, hidden: int = 0) -> None:
        super().__init__()
        if hidden < 0:
            raise IsonomyError(f"hidden={hidden} is the width of a layer: pass 1 or more, or 0 for none.")
        self.backbone = backbone
        self.hidden: nn.Sequential | None = None
        if hidden:
            linear = nn.Linear(backbone.channels[-1], hidden)
            nn.init.normal_(linear.weight, std=0.005)
            nn.init.constant_(linear.bias, 0.1)
            self.hidden = nn.Sequential(linear, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.channels = (hidden or backbone.channels[-1],)
        self.strides = ()

    def last_layer(self) -> list[nn.Parameter]:
        """The linear layer's parameters, or the backbone's last layer without one."""
        if self.hidden is None:
            return self.backbone.last_layer()
        return list(self.hidden[0].parameters())

    def forward(self, x: Tensor) -> list[Tensor]:
        """One vector an image: (B, C)."""
        z = self.backbone(x)[-1].mean(dim=(2, 3))
        return [z if self.hidden is None else self.hidden(z)]


def resnet18_pooled(hidden: int = 512, normalize: str | None = "checkpoint") -> Pooled:
    """ResNet-18, not dilated, averaged to one vector: 11,440,192 parameters, or 11,176,512 without a hidden layer."""
    return Pooled(resnet18(output_stride=32, normalize=normalize), hidden)


def resnet50_pyramid(output_stride: int = 8, normalize: str | None = "checkpoint") -> PyramidPooled:
    """ResNet-50 with a pyramid that all tasks share: 27,706,432 parameters."""
    return PyramidPooled(resnet50(output_stride, normalize))
