"""SegNet as in the codes of MTAN and its successors.

Badrinarayanan et al., "SegNet", TPAMI 2017, in the form of Liu et al., "End-to-end multi-task learning with attention",
CVPR 2019: convolutions with bias, two or three a stage.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.backbones.base import Backbone

WIDTHS = (64, 128, 256, 512, 512)


def block(inputs: int, outputs: int) -> nn.Sequential:
    """A 3 x 3 convolution with bias, batch normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def xavier(module: nn.Module) -> None:
    """Draws every convolution's weights from Xavier's normal distribution and sets its bias to zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class SegNet(Backbone):
    """An encoder of five stages and its mirror image, which puts values back where max-pooling found them.

    Its one map has 64 channels and the resolution of the image. Height and width have to be multiples of 32.

    Attributes:
        encoder_blocks: For stages 0 to 4, from the finest to the coarsest, the first convolution, which changes the
            number of channels.
        encoder_convs: The one or two that follow it, before max-pooling.
        decoder_blocks: For stages 0 to 4 again (they run from 4 to 0), the first convolution after unpooling.
        decoder_convs: The one or two that follow it.
    """

    channels = (WIDTHS[0],)
    strides = (1,)

    def __init__(self) -> None:
        super().__init__()
        self.encoder_blocks, self.encoder_convs = nn.ModuleList(), nn.ModuleList()
        self.decoder_blocks, self.decoder_convs = nn.ModuleList(), nn.ModuleList()
        for stage, width in enumerate(WIDTHS):
            further = range(1 if stage < 2 else 2)
            above = WIDTHS[max(stage - 1, 0)]
            self.encoder_blocks.append(block(above if stage else 3, width))
            self.encoder_convs.append(nn.Sequential(*(block(width, width) for _ in further)))
            self.decoder_blocks.append(block(width, above))
            self.decoder_convs.append(nn.Sequential(*(block(above, above) for _ in further)))
        xavier(self)

    def last_layer(self) -> list[nn.Parameter]:
        """The parameters of the last convolution and its normalisation."""
        return list(self.decoder_convs[0].parameters())

    def forward(self, x: Tensor) -> list[Tensor]:
        """One map (B, 64, H, W) of images (B, 3, H, W)."""
        indices = []
        for first, further in zip(self.encoder_blocks, self.encoder_convs, strict=True):
            x, index = functional.max_pool2d(further(first(x)), 2, return_indices=True)
            indices.append(index)
        for stage in reversed(range(len(WIDTHS))):
            x = functional.max_unpool2d(x, indices[stage], [2, 2])
            x = self.decoder_convs[stage](self.decoder_blocks[stage](x))
        return [x]
