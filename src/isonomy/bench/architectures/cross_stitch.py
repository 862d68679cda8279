"""Cross-stitch networks: an encoder a task, whose features are mixed between the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isonomy.bench.architectures import sharing
from isonomy.bench.architectures.columns import Columns, weighted
from isonomy.bench.architectures.output import Output
from isonomy.errors import IsonomyError, unknown


class CrossStitch(nn.Module):
    """A staged encoder for each task; after a stage, every task goes on with a learned mixture of all tasks' features.

    Misra et al., "Cross-stitch networks for multi-task learning", CVPR 2016, with a weight a channel after each of four
    stages as in Vandenhende et al., "Multi-task learning for dense prediction tasks: a survey", TPAMI 2022. LibMTL's
    form, which sums features and does not mix those behind the last stage, has ``granularity="scalar"``,
    ``init=(1, 1)`` and ``after=(1, 2, 3)``. A single task has no units.

    Args:
        encoder: Makes a staged backbone.
        heads: For each task, what makes its head.
        seed: Of the initial weights.
        granularity: ``"channel"``, a weight for each pair of tasks and channel, or ``"scalar"``, one for each pair.
        init: The first weight of a task's own features, and that of another task's.
        after: The stages, of 1 to 4, after which features are mixed.

    Raises:
        IsonomyError: There is no task, the encoder has no stages, or an option is none of these.
    """

    def __init__(
        self,
        encoder: Callable[[], nn.Module],
        heads: Mapping[str, Callable[[], nn.Module]],
        seed: int,
        granularity: Literal["channel", "scalar"] = "channel",
        init: tuple[float, float] = (0.9, 0.1),
        after: Sequence[int] = (1, 2, 3, 4),
    ) -> None:
        super().__init__()
        if granularity not in {"channel", "scalar"}:
            raise unknown("granularity", granularity, ("channel", "scalar"))
        if not after or not set(after) <= {1, 2, 3, 4}:
            raise IsonomyError(f"after={after!r} must name stages from 1 to 4, at least one.")
        made = sharing.make_heads(heads, seed)
        self.columns = Columns(encoder, list(heads), seed, max(after), "Cross-stitch")
        backbone: Any = next(iter(self.columns.backbones.values()))
        self.units = nn.ParameterDict()
        own, other = init
        count = len(heads)
        start = torch.full((count, count), other).fill_diagonal_(own)
        for stage in sorted(set(after)) if count > 1 else ():
            channels = backbone.channels[stage - 1]
            unit = start[..., None].repeat(1, 1, channels) if granularity == "channel" else start.clone()
            self.units[str(stage)] = nn.Parameter(unit)
        self.heads = made

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The encoders up to the last unit, and the units."""
        return chain(self.columns.shared_parameters(), self.units.parameters())

    def last_layer(self) -> list[nn.Parameter]:
        """The last convolution of each encoder before the last unit."""
        return self.columns.last_layer()

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> Output:
        """The predictions.

        Args:
            x: Images.
            tasks: Only these are computed, from every encoder; None for all.

        Raises:
            IsonomyError: A task is unknown.
        """
        chosen = sharing.wanted(self.heads, tasks)
        mix = {int(stage): partial(weighted, unit) for stage, unit in self.units.items()}
        maps = self.columns(x, mix, chosen)
        return Output(None, {task: sharing.predict(self.heads[task], maps[task]) for task in chosen})
