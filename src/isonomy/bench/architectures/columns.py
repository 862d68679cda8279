"""One staged backbone a task, side by side, with what is exchanged between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain
from operator import add
from typing import Any

from torch import Tensor, nn

from isonomy.bench.architectures import sharing
from isonomy.bench.seeds import drawn

# From every column's map to new ones for some columns.
Mix = Callable[[Mapping[str, Tensor], Sequence[str]], dict[str, Tensor]]


class Columns(nn.Module):
    """A backbone of its own for each task, which are mixed after some of their parts.

    The parts are counted from the stem, 0, to the last stage, 4. Behind the last mix a column is its task's own.

    Args:
        encoder: Makes a staged backbone.
        tasks: Names of the tasks.
        seed: Of the initial weights, which depend on it and the task's name alone.
        last: The part after which columns are mixed for the last time.
        architecture: What is built of them, for errors.

    Raises:
        IsonomyError: The backbone has no stages.
    """

    def __init__(
        self, encoder: Callable[[], nn.Module], tasks: Sequence[str], seed: int, last: int, architecture: str
    ) -> None:
        super().__init__()
        self.backbones = nn.ModuleDict()
        for task in tasks:
            with drawn(seed, "encoder", task):
                self.backbones[task] = encoder()
            sharing.require_stages(self.backbones[task], architecture)
        # A column that is alone is the encoder, and nothing is mixed.
        self.last = last if len(tasks) > 1 else 4

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the parts before the last mix."""
        parts = (sharing.stages(backbone)[: self.last + 1] for backbone in self.backbones.values())
        return chain.from_iterable(part.parameters() for part in chain.from_iterable(parts))

    def last_layer(self) -> list[nn.Parameter]:
        """The last shared convolution of every column."""
        parts: list[Any] = [sharing.stages(backbone)[self.last] for backbone in self.backbones.values()]
        # The block's own children: its shortcut, which comes last, is a module further down.
        layers = ([layer for layer in part[-1].children() if isinstance(layer, nn.Conv2d)] for part in parts)
        return [parameter for block in layers for parameter in block[-1].parameters()]

    def forward(self, x: Tensor, mix: Mapping[int, Mix], tasks: Sequence[str]) -> dict[str, list[Tensor]]:
        """Each task's four maps, mixed where they are mixed.

        Args:
            x: Images.
            mix: By part, what is done after it.
            tasks: Whose maps are wanted. What they do not need is not computed.
        """
        parts = {task: sharing.stages(backbone) for task, backbone in self.backbones.items()}
        flow = dict.fromkeys(parts, x)
        maps: dict[str, list[Tensor]] = {task: [] for task in tasks}
        for number in range(5):
            running = list(parts) if number <= self.last else tasks
            flow = {task: parts[task][number](flow[task]) for task in running}
            if number in mix:
                flow = mix[number](flow, tasks if number == self.last else running)
            if number > 0:
                for task in tasks:
                    maps[task].append(flow[task])
        return maps


def weighted(weights: Tensor, flow: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
    """Sums of all columns' maps, Σ_j A_tj x_j for each of some tasks t.

    Args:
        weights: A, shape (T, T), or (T, T, C) with a weight a channel.
        flow: Every column's map, shape (B, C, H, W).
        tasks: The rows that are wanted.
    """
    rows = dict(zip(flow, weights, strict=True))
    return {
        task: reduce(add, (weight.view(-1, 1, 1) * x for weight, x in zip(rows[task], flow.values(), strict=True)))
        for task in tasks
    }
