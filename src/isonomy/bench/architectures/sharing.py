"""What the networks that share an encoder have in common: their heads, and the maps that these read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from isonomy.bench.seeds import drawn
from isonomy.errors import IsonomyError, unknown

Maps = Sequence[Tensor] | Mapping[int, Tensor]


def make_heads(heads: Mapping[str, Callable[[], nn.Module]], seed: int) -> nn.ModuleDict:
    """A head for each task, whose initial weights depend on the seed and the task's name alone.

    Args:
        heads: For each task, what makes its head.
        seed: Of the initial weights.

    Raises:
        IsonomyError: There is no task.
    """
    if not heads:
        raise IsonomyError("heads= is empty: give what makes the head of at least one task.")
    made = nn.ModuleDict()
    for task, head in heads.items():
        with drawn(seed, "head", task):
            made[task] = head()
    return made


def wanted(heads: nn.ModuleDict, tasks: Sequence[str] | None) -> list[str]:
    """The tasks to compute, in the network's order.

    Args:
        heads: Of the network.
        tasks: Some of its tasks; None for all.

    Raises:
        IsonomyError: One of them is not the network's.
    """
    if tasks is None:
        return list(heads)
    for task in tasks:
        if task not in heads:
            raise unknown("task", task, heads)
    return [task for task in heads if task in tasks]


def run(encoder: nn.Module, x: Tensor) -> list[Tensor]:
    """An encoder's maps of a batch; an encoder that returns one tensor has one map."""
    maps = encoder(x)
    return [maps] if isinstance(maps, Tensor) else list(maps)


def reads(head: nn.Module) -> tuple[int, ...]:
    """Which of the encoder's maps a head reads: the last one, if it does not say."""
    indices: tuple[int, ...] = getattr(head, "reads", (-1,))
    return indices


def predict(head: nn.Module, maps: Maps) -> Tensor:
    """A head's prediction from the maps that it reads.

    Args:
        head: One map is passed to it as it is, several as a list.
        maps: The encoder's, by index.
    """
    read = [maps[index] for index in reads(head)]
    prediction: Tensor = head(read[0] if len(read) == 1 else read)
    return prediction


def last_layer(encoder: Any) -> list[nn.Parameter]:
    """The parameters of an encoder's last layer.

    Args:
        encoder: One that says so by a method of this name, or a sequence of layers.
    """
    if hasattr(encoder, "last_layer"):
        said: list[nn.Parameter] = encoder.last_layer()
        return said
    layers = [module for module in encoder.modules() if getattr(module, "weight", None) is not None]
    return list([layer for layer in layers if layer.weight.ndim > 1][-1].parameters(recurse=False))


def stages(backbone: Any) -> list[nn.Module]:
    """A staged backbone's parts, from the images to its last map: the stem and the stages."""
    return [backbone.stem, *backbone.stages]


def require_stages(backbone: nn.Module, architecture: str) -> None:
    """Refuses a backbone that is not staged.

    Args:
        backbone: The backbone.
        architecture: What is to be built on it, for the error.

    Raises:
        IsonomyError: It has no stages.
    """
    if not hasattr(backbone, "stages"):
        raise IsonomyError(
            f"{architecture} works between the stages of its encoder, and {type(backbone).__name__} has none: use a "
            "ResNet, such as resnet18."
        )
