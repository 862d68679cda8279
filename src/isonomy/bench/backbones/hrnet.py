"""HRNet-18 small v2, the network that papers on dense multi-task learning call HRNet-18; timm's, wrapped.

Wang et al., "Deep high-resolution representation learning for visual recognition", TPAMI 2020.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from isonomy.bench import _compat
from isonomy.bench.backbones.base import Backbone
from isonomy.bench.backbones.inputs import IMAGENET, normalizer
from isonomy.bench.backbones.weights import load
from isonomy.errors import unknown

FUSIONS = ("bilinear", "nearest")


class HRNet(Backbone):
    """Four resolutions side by side: maps of 18, 36, 72 and 144 channels at strides 4 to 32.

    Height and width have to be multiples of 32.

    Attributes:
        body: timm's network, whose first map, of the stem, is not asked for.

    Args:
        normalize: ``"checkpoint"`` and ``"imagenet"`` (the same here) normalise images in [0, 1] with ImageNet's
            statistics; None leaves them.
        fusion: How coarse maps are upsampled where resolutions meet: ``"bilinear"``, as in the dense papers' codes, or
            ``"nearest"``, as in timm.

    Raises:
        IsonomyError: For another normalisation or fusion, and without timm.
    """

    def __init__(self, normalize: str | None = "checkpoint", fusion: str = "bilinear") -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise unknown("fusion", fusion, FUSIONS)
        self.normalize = normalizer(normalize, IMAGENET)
        self.body = _compat.import_timm().create_model(
            "hrnet_w18_small_v2", pretrained=False, features_only=True, feature_location="", out_indices=(1, 2, 3, 4)
        )
        self.channels = tuple(self.body.feature_info.channels())
        self.strides = tuple(self.body.feature_info.reduction())
        for module in self.body.modules():
            if isinstance(module, nn.Upsample):
                module.mode = fusion

    def last_layer(self) -> list[nn.Parameter]:
        """The parameters of the last stage: no single layer is behind all four maps."""
        return list(self.body.stage4.parameters())

    def forward(self, x: Tensor) -> list[Tensor]:
        """The four maps of images (B, 3, H, W) in [0, 1]."""
        maps: list[Tensor] = self.body(self.normalize(x))
        return maps


def load_hrnet(network: HRNet, path: Path) -> int:
    """Loads timm's or the authors' weights, without what only the classifier reads. See ``weights.load``."""
    return load(network.body, path, drop=("incre_modules.", "downsamp_modules.", "final_layer.", "classifier."))
