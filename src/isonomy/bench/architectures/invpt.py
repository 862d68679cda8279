"""InvPT: a transformer decoder in which every position of every task attends to all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.architectures import blocks
from isonomy.bench.architectures.blocks import Shared, each
from isonomy.bench.architectures.output import Output
from isonomy.bench.architectures.sharing import last_layer, wanted
from isonomy.bench.backbones.tops import unit
from isonomy.bench.seeds import drawn
from isonomy.errors import IsonomyError

HEADS = 2

Maps = dict[str, Tensor]


def enlarge(x: Tensor, factor: float) -> Tensor:
    """A map (B, C, h, w) with its sides multiplied by a factor, bilinearly."""
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def to_tokens(maps: Mapping[str, Tensor]) -> Tensor:
    """The positions of all tasks' maps (B, C, h, w), task by task: (B, T·h·w, C)."""
    return torch.cat([x.flatten(2) for x in maps.values()], 2).transpose(1, 2)


def to_maps(tokens: Tensor, tasks: Sequence[str], height: int, width: int) -> Maps:
    """The inverse of ``to_tokens``."""
    parts = torch.split(tokens.transpose(1, 2), height * width, 2)
    return {task: part.reshape(*part.shape[:2], height, width) for task, part in zip(tasks, parts, strict=True)}


def enlarge_scores(scores: Tensor, tasks: int, height: int, width: int) -> Tensor:
    """Attention scores for queries on a grid twice as fine.

    Args:
        scores: Shape (B, heads, T·h·w, N).
        tasks: T.
        height: h.
        width: w.

    Returns:
        Shape (B, heads, 4·T·h·w, N), each task's queries interpolated among themselves.
    """
    batch, heads, _, keys = scores.shape
    grids = scores.reshape(batch * heads * tasks, height, width, keys).permute(0, 3, 1, 2)
    return enlarge(grids, 2).permute(0, 2, 3, 1).reshape(batch, heads, -1, keys)


class Stage(nn.Module):
    """A transformer block over the positions of all tasks together.

    Queries are on a grid half as fine as the stage's, keys and values on one that is the same for all stages, so that
    attention stays affordable and a stage can go on from the scores of the one before.

    Args:
        tasks: Names of the tasks.
        index: Of the stage, from 0; the first has no scores to go on from.
        width: Channels.
        seed: Of the initial weights.
    """

    def __init__(self, tasks: Sequence[str], index: int, width: int, seed: int) -> None:
        super().__init__()
        self.tasks, self.pool = tuple(tasks), 2 ** (index + 1)
        self.narrow = each(
            tasks,
            lambda _: nn.Sequential(
                nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width, bias=False), nn.BatchNorm2d(width)
            ),
            seed,
            "query",
            index,
        )
        with drawn(seed, "stage", index):
            self.norm = nn.LayerNorm(width)
            self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
            self.mix = nn.Conv2d(2 * HEADS, HEADS, 1) if index else None
            self.project = nn.Linear(width, width)
            self.mlp = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            )

    def forward(self, maps: Maps, before: Tensor | None) -> tuple[Maps, Tensor]:
        """The tasks' maps after the block, and its scores before the softmax.

        Args:
            maps: Of every task, shape (B, C, H, W).
            before: The scores of the stage before, shape (B, heads, T·H/4·W/4, N); None for the first one.

        Returns:
            The maps, and scores of shape (B, heads, T·H/2·W/2, N), where N = T·H/pool·W/pool.
        """
        height, width = maps[self.tasks[0]].shape[-2:]
        x = to_tokens(maps)
        normed = to_maps(self.norm(x), self.tasks, height, width)
        pooled = to_tokens({task: functional.avg_pool2d(y, self.pool) for task, y in normed.items()})
        scores = self.scores(to_tokens(self.narrow(normed)), pooled)
        if self.mix is not None:
            assert before is not None
            finer = enlarge_scores(before, len(self.tasks), height // 4, width // 4)
            scores = self.mix(torch.cat([scores, finer], 1))
        attended = (scores.softmax(-1) @ _heads(self.value(pooled))).transpose(1, 2).flatten(2)
        coarse = to_maps(self.project(attended), self.tasks, height // 2, width // 2)
        x = x + to_tokens({task: enlarge(y, 2) for task, y in coarse.items()})
        return to_maps(x + self.mlp(x), self.tasks, height, width), scores

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """How much each query asks for each key, shape (B, heads, Q, N), scaled by the full width as the authors do.

        Args:
            queries: Shape (B, Q, C).
            keys: Shape (B, N, C).
        """
        q, k = _heads(self.query(queries)), _heads(self.key(keys))
        scaled: Tensor = q @ k.transpose(-1, -2) * queries.shape[-1] ** -0.5
        return scaled


def _heads(tokens: Tensor) -> Tensor:
    """(B, N, C) to (B, heads, N, C / heads)."""
    return tokens.reshape(*tokens.shape[:2], HEADS, -1).transpose(1, 2)


class JointNorm(nn.Module):
    """Layer normalisation over the channels of all tasks' maps together.

    Args:
        tasks: T.
        width: Channels of a task's map.
    """

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(tasks * width)

    def forward(self, maps: Maps) -> Maps:
        """The tasks' normalised maps, each (B, C, H, W)."""
        normed = self.norm(torch.cat(list(maps.values()), 1).movedim(1, -1)).movedim(-1, 1)
        return dict(zip(maps, normed.chunk(len(maps), 1), strict=True))


class InvPT(nn.Module):
    """Preliminary predictions at 1/32 of the image's sides, then three stages of global interaction up to 1/8.

    Ye and Xu, "InvPT: Inverted Pyramid Multi-task Transformer for Dense Scene Understanding", ECCV 2022. What the
    authors' code builds and never uses is left out: the first stage's skip, reduction and mixing of scores, and a
    normalisation at the end. These are 9·c·D₀ + D₀, T·(D₀² + D₀), 10 and T·D₀/2 parameters for a backbone of c channels
    and D₀ = width + 64: 5,312,458 for four tasks on ViT-B at the published width. BatchNorm is that of one process.

    Args:
        encoder: Makes the backbone, a plain ViT: maps of one resolution, of which the first, the second and the last
            are read.
        outputs: Channels of each task's prediction.
        seed: Of the initial weights; those of a part depend on it and the part's name alone.
        width: Channels of the preliminary features, a multiple of 8.
        shared: What ``shared_parameters`` gives: what two or more tasks' losses reach, or the backbone alone.
    """

    def __init__(
        self,
        encoder: Callable[[], nn.Module],
        outputs: Mapping[str, int],
        seed: int,
        *,
        width: int = 512,
        shared: Shared = "reached",
    ) -> None:
        super().__init__()
        blocks.require(outputs, shared)
        if width % 8:
            raise IsonomyError(f"width={width} must be a multiple of 8.")
        self.tasks, self.backbone_alone = tuple(outputs), shared == "backbone" or len(outputs) == 1
        self.encoder, channels = blocks.backbone(encoder, seed)
        self.stride = self._stride()
        common, last = width + 64, channels[-1]
        widths = (common, common // 2, common // 4)
        self.preliminary = each(
            outputs, lambda _: nn.Sequential(unit(last, last, 3), unit(last, width, 3)), seed, "preliminary"
        )
        self.initial = each(outputs, lambda task: nn.Conv2d(width, outputs[task], 1), seed, "initial")
        self.embed = each(outputs, lambda task: nn.Conv2d(width + outputs[task], common, 1), seed, "embed")
        self.lifts = nn.ModuleList(self._lift(index, widths[index - 1], widths[index], seed) for index in (1, 2))
        with drawn(seed, "skip"):
            self.skips = nn.ModuleList(
                [
                    nn.Conv2d(channels[1], widths[1], 3, padding=1),
                    nn.ConvTranspose2d(channels[0], widths[2], 3, stride=2, padding=1, output_padding=1),
                ]
            )
        self.stages = nn.ModuleList(Stage(self.tasks, index, w, seed) for index, w in enumerate(widths))
        self.norms = nn.ModuleList(JointNorm(len(outputs), w) for w in widths)
        # The first stage has the common width already.
        self.reductions = nn.ModuleList([nn.Identity(), *(self._reduction(i, widths[i], common, seed) for i in (1, 2))])
        self.heads = each(
            outputs,
            lambda task: nn.Sequential(
                nn.Conv2d(common, common, 3, padding=1),
                nn.BatchNorm2d(common),
                nn.ReLU(inplace=True),
                nn.Conv2d(common, outputs[task], 1),
            ),
            seed,
            "head",
        )

    def _stride(self) -> int:
        strides = tuple(self.encoder.strides)  # type: ignore[arg-type]
        if len(strides) < 3 or len(set(strides)) > 1:
            raise IsonomyError(
                f"encoder= makes maps of strides {strides}; InvPT reads three or more of one resolution: pass a ViT of "
                "isonomy.bench.backbones."
            )
        return int(strides[0])

    def _lift(self, index: int, inputs: int, outputs: int, seed: int) -> nn.Module:
        """Per task, a map with twice the sides for the next stage."""
        return each(
            self.tasks,
            lambda _: nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear"), unit(inputs, outputs, 3, 2), unit(outputs, outputs, 3, 2)
            ),
            seed,
            "lift",
            index,
        )

    def _reduction(self, index: int, inputs: int, outputs: int, seed: int) -> nn.Module:
        return each(self.tasks, lambda _: nn.Conv2d(inputs, outputs, 1), seed, "reduction", index)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the backbone and, unless it is wanted alone, of all but the reductions and heads.

        The normalisation over all tasks' channels lets every loss reach what comes before it, the last stage included.
        """
        further = [self.preliminary, self.initial, self.embed, self.lifts, self.skips, self.stages, self.norms]
        return blocks.shared_parameters(self.encoder, further, self.backbone_alone)

    def last_layer(self) -> list[nn.Parameter]:
        """The backbone's last layer."""
        return last_layer(self.encoder)

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> Output:
        """Final predictions, at a quarter of the image's sides; the preliminary ones, at 1/32, are in ``aux``.

        Args:
            x: Images, shape (B, 3, H, W), H and W multiples of 64 (four times the backbone's stride).
            tasks: Whose predictions are wanted, all by default.

        Raises:
            IsonomyError: H or W is another number.
        """
        chosen = wanted(self.heads, tasks)
        height, width = x.shape[-2:]
        multiple = 4 * self.stride
        if height % multiple or width % multiple:
            raise IsonomyError(
                f"InvPT takes images whose height and width are multiples of {multiple}, not {height} x {width}: "
                "pad or crop them."
            )
        first, second, *_, last = self.encoder(x)
        coarse = enlarge(last, 0.5)
        hidden = self.preliminary(dict.fromkeys(self.tasks, coarse))
        initial = self.initial(hidden)
        maps = self.embed({task: torch.cat([hidden[task], initial[task]], 1) for task in self.tasks})
        maps, scores = self.stages[0](maps, None)
        levels = [maps]
        for lift, skip, read, stage in zip(self.lifts, self.skips, (second, first), self.stages[1:], strict=True):
            own = skip(read)
            maps, scores = stage({task: y + own for task, y in lift(maps).items()}, scores)
            levels.append(maps)
        levels = [reduce(norm(level)) for level, norm, reduce in zip(levels, self.norms, self.reductions, strict=True)]
        final = {task: sum(enlarge(level[task], 2 ** (3 - i)) for i, level in enumerate(levels)) for task in chosen}
        return Output([first, second, last], self.heads(final), ({task: initial[task] for task in chosen},))
