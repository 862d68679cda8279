"""MTI-Net: the tasks inform each other at every scale, coarse to fine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from isonomy.bench.architectures import blocks
from isonomy.bench.architectures.blocks import Distillation, Shared, each
from isonomy.bench.architectures.output import Output
from isonomy.bench.architectures.sharing import last_layer, wanted
from isonomy.bench.backbones.heads import HRNetHead, resize
from isonomy.bench.backbones.resnet import BasicBlock
from isonomy.bench.seeds import drawn


class SqueezeExcite(nn.Module):
    """Channels gated by what the whole map holds.

    Args:
        channels: Of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(1, channels // 16)
        self.gate = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """The gated map, shape (B, C, H, W)."""
        gated: Tensor = x * self.gate(x.mean((2, 3)))[..., None, None]
        return gated


class Propagation(nn.Module):
    """Features of one scale as they go to the next finer one: each task's own, and what all of them hold together.

    Args:
        tasks: Names of the tasks.
        channels: Of a task's features.
        reference_layout: Whether the softmax runs over T adjacent channels of the joined features, as in the authors'
            code, where it mixes channels and not tasks; else over the tasks, channel by channel.
        seed: Of the initial weights.
        part: What this is called.
    """

    def __init__(
        self, tasks: Sequence[str], channels: int, reference_layout: bool, seed: int, *part: str | int
    ) -> None:
        super().__init__()
        joined = len(tasks) * channels
        narrow = max(1, joined // 4)
        self.tasks, self.reference_layout = tuple(tasks), reference_layout
        with drawn(seed, *part):
            self.attend = nn.Sequential(
                BasicBlock(joined, narrow), BasicBlock(narrow, narrow), nn.Conv2d(narrow, joined, 1)
            )
            self.common = BasicBlock(joined, channels)
        self.excite = each(tasks, lambda _: SqueezeExcite(channels), seed, *part)

    def attention(self, joined: Tensor) -> Tensor:
        """How much each element counts, shape (B, T·C, H, W); constant 1 for one task.

        Args:
            joined: The tasks' features, task by task, shape (B, T·C, H, W).
        """
        tasks = len(self.tasks)
        sizes, over = ((-1, tasks), 2) if self.reference_layout else ((tasks, -1), 1)
        logits: Tensor = self.attend(joined)
        return logits.reshape(len(logits), *sizes, *logits.shape[2:]).softmax(over).flatten(1, 2)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The features for the next finer scale, each of shape (B, C, H, W)."""
        joined = torch.cat([features[task] for task in self.tasks], 1)
        excited = self.excite(dict.fromkeys(self.tasks, self.common(joined * self.attention(joined))))
        return {task: features[task] + excited[task] for task in self.tasks}


class MTINet(nn.Module):
    """Multi-scale task interaction: at each scale a feature and a prediction per task, passed on from coarse to fine.

    Vandenhende, Georgoulis and Van Gool, "MTI-Net: Multi-Scale Task Interaction Networks for Multi-Task Learning",
    ECCV 2020. A task that is alone distils its own features into themselves, and the attention of its propagation is
    the constant 1: the branch that computes it is there, as in the published counts, and gets zero gradients.

    Args:
        encoder: Makes the backbone.
        outputs: Channels of each task's prediction.
        seed: Of the initial weights; those of a part depend on it and the part's name alone.
        reference_fpm_layout: As ``reference_layout`` of ``Propagation``.
        shared: What ``shared_parameters`` gives: what two or more tasks' losses reach, or the backbone alone.
    """

    def __init__(
        self,
        encoder: Callable[[], nn.Module],
        outputs: Mapping[str, int],
        seed: int,
        *,
        reference_fpm_layout: bool = False,
        shared: Shared = "reached",
    ) -> None:
        super().__init__()
        blocks.require(outputs, shared)
        self.tasks, self.backbone_alone = tuple(outputs), shared == "backbone" or len(outputs) == 1
        self.encoder, channels = blocks.backbone(encoder, seed)
        # One of each per scale, fine to coarse.
        self.branches, self.deep, self.distillations = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.propagations = nn.ModuleList()  # from scales 1, 2, ... to the next finer one
        for scale, width in enumerate(channels):
            self._add_scale(scale, width, sum(channels[scale + 1 : scale + 2]), outputs, seed)
            if scale:
                self.propagations.append(
                    Propagation(self.tasks, width, reference_fpm_layout, seed, "propagation", scale)
                )
        self.heads = each(outputs, lambda task: HRNetHead(channels, outputs[task]), seed, "head")

    def _add_scale(self, scale: int, width: int, coarser: int, outputs: Mapping[str, int], seed: int) -> None:
        self.branches.append(
            each(
                outputs,
                lambda _: nn.Sequential(BasicBlock(width + coarser, width), BasicBlock(width, width)),
                seed,
                "branch",
                scale,
            )
        )
        self.deep.append(each(outputs, lambda task: nn.Conv2d(width, outputs[task], 1), seed, "deep", scale))
        self.distillations.append(Distillation(self.tasks, width, seed, "distillation", scale))

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the backbone and, unless it is wanted alone, of every task's features and propagations."""
        return blocks.shared_parameters(self.encoder, [self.branches, self.propagations], self.backbone_alone)

    def last_layer(self) -> list[nn.Parameter]:
        """The backbone's last layer."""
        return last_layer(self.encoder)

    def features(self, maps: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Each scale's features of every task, fine to coarse, each of the shape of the backbone's map.

        Args:
            maps: The backbone's, fine to coarse.
        """
        found: list[dict[str, Tensor]] = []
        coarser: dict[str, Tensor] = {}
        for scale in reversed(range(len(maps))):
            own = maps[scale]
            inputs = {task: torch.cat([own, resize(coarser[task], own)], 1) if coarser else own for task in self.tasks}
            found.insert(0, self.branches[scale](inputs))
            if scale:
                coarser = self.propagations[scale - 1](found[0])
        return found

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> Output:
        """Final predictions, at the resolution of the finest map; each scale's, fine to coarse, are in ``aux``.

        Args:
            x: Images, shape (B, 3, H, W).
            tasks: Whose predictions are wanted, all by default.
        """
        chosen = wanted(self.heads, tasks)
        maps = self.encoder(x)
        features = self.features(maps)
        deep = tuple(
            predict({task: level[task] for task in chosen}) for predict, level in zip(self.deep, features, strict=True)
        )
        refined = [distil(level, chosen) for distil, level in zip(self.distillations, features, strict=True)]
        predictions = {task: self.heads[task]([level[task] for level in refined]) for task in chosen}
        return Output(list(maps), predictions, deep)
