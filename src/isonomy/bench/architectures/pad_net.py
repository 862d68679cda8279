"""PAD-Net: predict, then distil the tasks' features into each other, then predict again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from isonomy.bench.architectures import blocks
from isonomy.bench.architectures.blocks import Distillation, Shared, each
from isonomy.bench.architectures.output import Output
from isonomy.bench.architectures.sharing import last_layer, wanted
from isonomy.bench.backbones.heads import resize
from isonomy.bench.backbones.resnet import Bottleneck
from isonomy.bench.seeds import drawn
from isonomy.errors import IsonomyError


class Fusion(nn.Module):
    """Maps of several resolutions as one, at that of the first: resized, joined and mixed by a 1×1 convolution.

    Args:
        channels: Of the maps.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        width = sum(channels)
        self.mix = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The fused map, shape (B, Σ channels, H, W)."""
        fused: Tensor = self.mix(torch.cat([resize(x, maps[0]) for x in maps], 1))
        return fused


class PADNet(nn.Module):
    """Each task's feature gives an initial prediction and is refined by those of the other tasks.

    Xu, Ouyang, Wang and Sebe, "PAD-Net: Multi-Tasks Guided Prediction-and-Distillation Network for Simultaneous Depth
    Estimation and Scene Parsing", CVPR 2018, on the fused maps of an HRNet. A task that is alone distils its own
    feature into itself.

    Args:
        encoder: Makes the backbone.
        outputs: Channels of each task's prediction.
        seed: Of the initial weights; those of a part depend on it and the part's name alone.
        width: Channels of the tasks' features, a multiple of 4.
        shared: What ``shared_parameters`` gives: what two or more tasks' losses reach, or the backbone alone.
    """

    def __init__(
        self,
        encoder: Callable[[], nn.Module],
        outputs: Mapping[str, int],
        seed: int,
        *,
        width: int = 256,
        shared: Shared = "reached",
    ) -> None:
        super().__init__()
        blocks.require(outputs, shared)
        if width % 4:
            raise IsonomyError(f"width={width} must be a multiple of 4.")
        self.tasks, self.backbone_alone = tuple(outputs), shared == "backbone" or len(outputs) == 1
        self.encoder, channels = blocks.backbone(encoder, seed)
        with drawn(seed, "fusion"):
            self.fusion = Fusion(channels)
        self.branches = each(
            outputs,
            lambda _: nn.Sequential(Bottleneck(sum(channels), width // 4), Bottleneck(width, width // 4)),
            seed,
            "branch",
        )
        self.initial = each(outputs, lambda task: nn.Conv2d(width, outputs[task], 1), seed, "initial")
        self.distillation = Distillation(self.tasks, width, seed, "distillation")
        self.heads = each(
            outputs,
            lambda task: nn.Sequential(
                Bottleneck(width, width // 4), Bottleneck(width, width // 4), nn.Conv2d(width, outputs[task], 1)
            ),
            seed,
            "head",
        )

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the backbone and, unless it is wanted alone, of the fusion and of every task's feature."""
        return blocks.shared_parameters(self.encoder, [self.fusion, self.branches], self.backbone_alone)

    def last_layer(self) -> list[nn.Parameter]:
        """The backbone's last layer."""
        return last_layer(self.encoder)

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> Output:
        """Final predictions; the initial ones are in ``aux``. All at the resolution of the backbone's first map.

        Args:
            x: Images, shape (B, 3, H, W).
            tasks: Whose predictions are wanted, all by default.
        """
        chosen = wanted(self.heads, tasks)
        maps = self.encoder(x)
        features = self.branches(dict.fromkeys(self.tasks, self.fusion(maps)))
        initial = self.initial({task: features[task] for task in chosen})
        return Output(list(maps), self.heads(self.distillation(features, chosen)), (initial,))
