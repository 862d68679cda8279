"""Residual networks, dilated for dense prediction where that is asked for.

He et al., "Deep residual learning for image recognition", CVPR 2016, with the stride of a bottleneck on its 3 x 3
convolution; dilation as in Yu et al., "Dilated residual networks", CVPR 2017. Parameters are named as in torchvision
and timm, so that their checkpoints fit.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from isonomy.bench.backbones.base import Backbone
from isonomy.bench.backbones.inputs import IMAGENET, normalizer
from isonomy.errors import IsonomyError

STRIDES = (8, 16, 32)


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, dilation * (size // 2), dilation, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut.

    Args:
        inputs: Channels that come in.
        width: Channels of both convolutions.
        stride: Of the first convolution.
        dilations: Of the first and of the second convolution.
    """

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1, dilations: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, width, 3, stride, dilations[0])
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, dilation=dilations[1])
        self.bn2 = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, width, H / stride, W / stride)."""
        y = self.act(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        z: Tensor = self.act(y + shortcut)
        return z


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two 1 x 1 ones, beside a shortcut.

    Args:
        inputs: Channels that come in.
        width: Channels of the 3 x 3 convolution; four times as many go out.
        stride: Of the 3 x 3 convolution.
        dilations: Its dilation comes first; the second number, of blocks with two 3 x 3 convolutions, is not used.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1, dilations: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride, dilations[0])
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, self.expansion * width, 1)
        self.bn3 = nn.BatchNorm2d(self.expansion * width)
        self.act = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, self.expansion * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 4 * width, H / stride, W / stride)."""
        y = self.act(self.bn1(self.conv1(x)))
        y = self.act(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        z: Tensor = self.act(y + shortcut)
        return z


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNet(Backbone):
    """A residual network without a classifier. Its maps are what its four stages give.

    Attributes:
        channels: Of each map.
        strides: Input pixels per pixel of each map.

    Args:
        block: ``BasicBlock`` or ``Bottleneck``.
        depths: Blocks of each stage.
        widths: Of the blocks of each stage; the first one is the stem's too.
        output_stride: Stages that would make the maps coarser than this keep the resolution and dilate instead: 8, 16
            or 32.
        normalize: ``"checkpoint"`` and ``"imagenet"`` (the same here) normalise images in [0, 1] with ImageNet's
            statistics; None leaves them.

    Raises:
        IsonomyError: For another output stride or normalisation.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        output_stride: int = 8,
        normalize: str | None = "checkpoint",
    ) -> None:
        super().__init__()
        if output_stride not in STRIDES:
            raise IsonomyError(f"output_stride has to be 8, 16 or 32, not {output_stride!r}.")
        self.normalize = normalizer(normalize, IMAGENET)
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, reached, dilation = widths[0], 4, 1
        strides = []
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stride, before = 1 if index == 0 else 2, dilation
            if reached * stride > output_stride:
                stride, dilation = 1, dilation * stride
            reached *= stride
            # The first convolution of a stage still sees the grid of the stage before.
            blocks: list[nn.Module] = [block(inputs, width, stride, (before, dilation))]
            inputs = block.expansion * width
            blocks += [block(inputs, width, 1, (dilation, dilation)) for _ in range(depth - 1)]
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
            strides.append(reached)
        self.channels = tuple(block.expansion * width for width in widths)
        self.strides = tuple(strides)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def stem(self) -> nn.Sequential:
        """What comes before the first stage, normalisation and max-pool included: (B, 3, H, W) to strides of 4."""
        return nn.Sequential(self.normalize, self.conv1, self.bn1, self.act1, self.maxpool)

    @property
    def stages(self) -> list[nn.Sequential]:
        """The four stages, each a sequence of blocks."""
        return [stage for name, stage in self.named_children() if name.startswith("layer")]  # type: ignore[misc]

    def last_layer(self) -> list[nn.Parameter]:
        """The weight of the last convolution."""
        last = self.stages[-1][-1]
        return [last.conv3.weight if isinstance(last, Bottleneck) else last.conv2.weight]  # type: ignore[list-item,union-attr]

    def forward(self, x: Tensor) -> list[Tensor]:
        """The four maps of images (B, 3, H, W) in [0, 1]."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def resnet18(output_stride: int = 8, normalize: str | None = "checkpoint") -> ResNet:
    """ResNet-18: 11,176,512 parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), output_stride=output_stride, normalize=normalize)


def resnet50(output_stride: int = 8, normalize: str | None = "checkpoint") -> ResNet:
    """ResNet-50: 23,508,032 parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), output_stride=output_stride, normalize=normalize)


def resnet_mini(output_stride: int = 8) -> ResNet:
    """One basic block a stage, an eighth of the width: for tests and quick looks. It takes images as they are."""
    return ResNet(BasicBlock, (1, 1, 1, 1), (8, 16, 32, 64), output_stride, None)
