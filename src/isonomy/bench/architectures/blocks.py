"""Pieces that the decoder-focused networks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from isonomy.bench.seeds import drawn
from isonomy.errors import IsonomyError, unknown

Shared = Literal["reached", "backbone"]


class Each(nn.ModuleDict):
    """A module for each task."""

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the modules of the tasks that have an input make of it."""
        return {task: self[task](x) for task, x in inputs.items()}


def each(tasks: Iterable[str], make: Callable[[str], nn.Module], seed: int, *part: str | int) -> Each:
    """A module for each task, whose initial weights depend on the seed and its name alone.

    Args:
        tasks: Names of the tasks.
        make: From a task's name to its module.
        seed: Of the initial weights.
        part: What the modules are called; the task's name is added.
    """
    modules = Each()
    for task in tasks:
        with drawn(seed, *part, task):
            modules[task] = make(task)
    return modules


class SelfAttention(nn.Module):
    """What a task takes of a feature: a convolution of it, gated element by element by the sigmoid of another.

    Args:
        channels: Of the feature.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.content = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """What is taken, shape (B, C, H, W) like the feature."""
        taken: Tensor = self.content(x) * torch.sigmoid(self.gate(x))
        return taken


class Distillation(nn.Module):
    """Each task's feature plus what it takes of every other task's.

    A task that is alone takes of its own: so much does the matched single-task network have, too.

    Args:
        tasks: Names of the tasks.
        channels: Of their features.
        seed: Of the initial weights.
        part: What this is called.
    """

    def __init__(self, tasks: Sequence[str], channels: int, seed: int, *part: str | int) -> None:
        super().__init__()
        self.sources = {task: [other for other in tasks if other != task] or [task] for task in tasks}
        self.takes = nn.ModuleDict(
            {
                task: each(sources, lambda _: SelfAttention(channels), seed, *part, task)
                for task, sources in self.sources.items()
            }
        )

    def forward(self, features: Mapping[str, Tensor], tasks: Iterable[str]) -> dict[str, Tensor]:
        """The refined features.

        Args:
            features: Of every task, each of shape (B, C, H, W).
            tasks: Whose are wanted.
        """
        return {
            task: features[task] + sum(self.takes[task]({a: features[a] for a in self.sources[task]}).values())
            for task in tasks
        }


def require(outputs: Mapping[str, int], shared: str) -> None:
    """Raises an error unless there is a task, each has a channel, and ``shared`` is known."""
    if not outputs:
        raise IsonomyError("outputs= holds no task: pass the number of channels of each, such as {'depth': 1}.")
    for task, channels in outputs.items():
        if channels < 1:
            raise IsonomyError(f"outputs= gives {channels} channels to the task {task!r}: pass 1 or more.")
    if shared not in get_args(Shared):
        raise unknown("value of shared", shared, get_args(Shared))


def backbone(make: Callable[[], nn.Module], seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    """The encoder and the channels of each map that it gives.

    Args:
        make: Makes the encoder.
        seed: Of the initial weights.

    Raises:
        IsonomyError: It does not say what it gives.
    """
    with drawn(seed, "encoder"):
        encoder = make()
    channels = getattr(encoder, "channels", None)
    if not isinstance(channels, tuple):
        raise IsonomyError(
            f"encoder= makes a {type(encoder).__name__}, which has no channels: pass one of isonomy.bench.backbones, "
            "which give a list of maps."
        )
    return encoder, channels


def shared_parameters(encoder: nn.Module, further: Iterable[nn.Module], alone: bool) -> Iterator[nn.Parameter]:
    """The encoder's parameters and those of further modules.

    Args:
        encoder: Which every task reads.
        further: What else two or more tasks' losses reach.
        alone: Whether the encoder's are wanted alone.
    """
    return chain.from_iterable(module.parameters() for module in ([encoder] if alone else [encoder, *further]))
