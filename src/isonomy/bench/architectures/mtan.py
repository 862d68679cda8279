"""MTAN: one encoder, from whose stages each task attends to its own features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.architectures import sharing
from isonomy.bench.architectures.output import Output
from isonomy.bench.backbones.resnet import BasicBlock, Bottleneck
from isonomy.bench.backbones.segnet import WIDTHS, block, xavier
from isonomy.bench.seeds import drawn
from isonomy.errors import IsonomyError, unknown

Variant = Literal["survey", "libmtl"]


class MTAN(nn.Module):
    """A shared encoder, and for each task masks that pick from its features, stage by stage.

    Liu et al., "End-to-end multi-task learning with attention", CVPR 2019, on SegNet; on a ResNet as in Vandenhende et
    al., "Multi-task learning for dense prediction tasks: a survey", TPAMI 2022, or as in LibMTL. What refines masked
    features between two stages is the same for all tasks, and so shared. A single task keeps its masks.

    Args:
        encoder: Makes a staged backbone or a SegNet.
        heads: For each task, what makes its head; it reads the masked features.
        seed: Of the initial weights.
        variant: On a ResNet, ``"survey"``: masks have a quarter of the width inside, and features are refined by
            bottlenecks; ``"libmtl"``: the blocks are of the encoder's kind, and with basic ones masks are not narrowed.

    Raises:
        IsonomyError: There is no task, the encoder is neither of the two, or the variant is unknown.
    """

    def __init__(
        self,
        encoder: Callable[[], nn.Module],
        heads: Mapping[str, Callable[[], nn.Module]],
        seed: int,
        variant: Variant = "survey",
    ) -> None:
        super().__init__()
        if variant not in {"survey", "libmtl"}:
            raise unknown("variant", variant, ("survey", "libmtl"))
        with drawn(seed, "encoder"):
            self.encoder = encoder()
        self.path: ResNetPath | SegNetPath
        with drawn(seed, "refine"):
            if hasattr(self.encoder, "stages"):
                self.path = ResNetPath(self.encoder, variant)
            elif hasattr(self.encoder, "encoder_blocks"):
                self.path = SegNetPath()
            else:
                raise IsonomyError(
                    f"MTAN attends to the stages of its encoder, and {type(self.encoder).__name__} has none: use a "
                    "ResNet, such as resnet18, or segnet."
                )
        self.masks = nn.ModuleDict()
        for task in heads:
            with drawn(seed, "mask", task):
                self.masks[task] = self.path.masks()
        self.heads = sharing.make_heads(heads, seed)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The encoder's parameters, and those of what refines masked features."""
        return chain(self.encoder.parameters(), self.path.parameters())

    def last_layer(self) -> list[nn.Parameter]:
        """Those of the encoder's last layer."""
        return sharing.last_layer(self.encoder)

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> Output:
        """The predictions.

        Args:
            x: Images.
            tasks: Only these are computed; None for all.

        Raises:
            IsonomyError: A task is unknown.
        """
        chosen = sharing.wanted(self.heads, tasks)
        seen = self.path.look(self.encoder, x)
        maps = {task: self.path(seen, self.masks[task]) for task in chosen}
        return Output(None, {task: sharing.predict(self.heads[task], maps[task]) for task in chosen})


def mask(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """A mask in [0, 1] for features (B, outputs, H, W), of features (B, inputs, H, W)."""
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 1),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, outputs, 1),
        nn.BatchNorm2d(outputs),
        nn.Sigmoid(),
    )


class ResNetPath(nn.Module):
    """A task's way along a ResNet: a mask for each stage's last block, of what comes before it and of the task's own.

    Args:
        encoder: A staged backbone.
        variant: As ``MTAN`` has it.
    """

    def __init__(self, encoder: Any, variant: Variant) -> None:
        super().__init__()
        basic = variant == "libmtl" and isinstance(encoder.stages[0][0], BasicBlock)
        self.channels: tuple[int, ...] = encoder.channels
        self.narrow = 1 if basic else 4
        kind = BasicBlock if basic else Bottleneck
        self.refine = nn.ModuleList(
            kind(here, after // kind.expansion) for here, after in zip(self.channels, self.channels[1:], strict=False)
        )

    def masks(self) -> nn.ModuleList:
        """A task's masks, one a stage."""
        return nn.ModuleList(
            mask(width if stage == 0 else 2 * width, width // self.narrow, width)
            for stage, width in enumerate(self.channels)
        )

    def look(self, encoder: Any, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each stage what its last but one block gives, and its last one; the same twice where it has one block."""
        x = encoder.stem(x)
        seen = []
        for stage in encoder.stages:
            before = stage[:-1](x) if len(stage) > 1 else stage(x)
            x = stage[-1](before) if len(stage) > 1 else before
            seen.append((before, x))
        return seen

    def forward(self, seen: list[tuple[Tensor, Tensor]], masks: Any) -> list[Tensor]:
        """The masked features of each stage.

        Args:
            seen: As ``look`` gives it.
            masks: The task's.
        """
        maps: list[Tensor] = []
        for stage, (before, last) in enumerate(seen):
            read = before
            if stage > 0:
                refined = self.refine[stage - 1](maps[-1])
                if refined.shape[-2:] != before.shape[-2:]:
                    refined = functional.max_pool2d(refined, 2, ceil_mode=True)
                read = torch.cat([before, refined], dim=1)
            maps.append(masks[stage](read) * last)
        return maps


class SegNetPath(nn.Module):
    """A task's way along a SegNet, down its encoder and up its decoder."""

    def __init__(self) -> None:
        super().__init__()
        finer = (WIDTHS[0], *WIDTHS[:-1])
        coarser = (*WIDTHS[1:], WIDTHS[-1])
        self.down = nn.ModuleList(block(here, below) for here, below in zip(WIDTHS, coarser, strict=True))
        self.up = nn.ModuleList(block(here, above) for here, above in zip(WIDTHS, finer, strict=True))
        xavier(self)

    def masks(self) -> nn.ModuleDict:
        """A task's masks, one for each stage of the encoder and of the decoder."""
        finer = (WIDTHS[0], *WIDTHS[:-1])
        down = (mask(width if stage == 0 else 2 * width, width, width) for stage, width in enumerate(WIDTHS))
        up = (mask(width + above, above, above) for width, above in zip(WIDTHS, finer, strict=True))
        made = nn.ModuleDict({"down": nn.ModuleList(down), "up": nn.ModuleList(up)})
        xavier(made)
        return made

    def look(self, encoder: Any, x: Tensor) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """For each stage of the encoder its first and its last feature, and the same of the decoder, finest first."""
        down, indices = [], []
        for first, further in zip(encoder.encoder_blocks, encoder.encoder_convs, strict=True):
            before = first(x)
            last = further(before)
            x, index = functional.max_pool2d(last, 2, return_indices=True)
            down.append((before, last))
            indices.append(index)
        up = []
        for stage in reversed(range(len(WIDTHS))):
            unpooled = functional.max_unpool2d(x, indices[stage], [2, 2])
            x = encoder.decoder_convs[stage](encoder.decoder_blocks[stage](unpooled))
            up.append((unpooled, x))
        return down, up[::-1]

    def forward(
        self, seen: tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]], masks: Any
    ) -> list[Tensor]:
        """The masked features of the decoder's finest stage, as the one map that SegNet has.

        Args:
            seen: As ``look`` gives it.
            masks: The task's.
        """
        down, up = seen
        x = None
        for (before, last), gate, refine in zip(down, masks["down"], self.down, strict=True):
            picked = gate(before if x is None else torch.cat([before, x], dim=1)) * last
            x = functional.max_pool2d(refine(picked), 2)
        assert x is not None
        for stage in reversed(range(len(WIDTHS))):
            unpooled, last = up[stage]
            x = self.up[stage](functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
            x = masks["up"][stage](torch.cat([unpooled, x], dim=1)) * last
        return [x]
