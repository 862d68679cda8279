"""Encoders as experts, whose features each task mixes by the weights of a gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain
from math import prod
from operator import add
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.architectures import sharing
from isonomy.bench.architectures.output import Output
from isonomy.bench.seeds import drawn
from isonomy.errors import IsonomyError, unknown

GateInput = Literal["pooled", "image"]
# Pooled images are averaged over so many windows in both directions.
GRID = 4


class View(nn.Module):
    """What a gate reads of images: all their numbers, or their averages over a grid.

    Attributes:
        width: How many numbers that are.

    Args:
        shape: Of an image: (C, H, W), or (C,) where it is pooled.
        gate_input: ``"pooled"`` or ``"image"``.

    Raises:
        IsonomyError: It is neither, or a whole image's shape is not said.
    """

    def __init__(self, shape: Sequence[int], gate_input: GateInput) -> None:
        super().__init__()
        if gate_input not in {"pooled", "image"}:
            raise unknown("gate_input", gate_input, ("pooled", "image"))
        if gate_input == "image" and len(shape) != 3:
            raise IsonomyError(f"gate_input='image' needs the images' shape: pass image=(C, H, W), not {tuple(shape)}.")
        self.pooled = gate_input == "pooled"
        self.width = shape[0] * GRID**2 if self.pooled else prod(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, width).

        Raises:
            IsonomyError: They are no images, or have another shape than it was made for.
        """
        if not isinstance(x, Tensor) or x.ndim != 4:
            raise IsonomyError("A gate reads images, shape (B, C, H, W): use hps for other inputs.")
        view = (functional.adaptive_avg_pool2d(x, GRID) if self.pooled else x).flatten(1)
        if view.shape[1] != self.width:
            raise IsonomyError(
                f"A gate that reads {self.width} numbers got {view.shape[1]}, of images of shape {tuple(x.shape[1:])}: "
                "pass image= with this shape where the network is made."
            )
        return view


class Gate(nn.Module):
    """Weights that are positive and sum to one: a linear layer and a softmax.

    Args:
        view: What it reads.
        experts: How many weights it gives.
    """

    def __init__(self, view: View, experts: int) -> None:
        super().__init__()
        self.view, self.linear = view, nn.Linear(view.width, experts)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Weights of images (B, C, H, W), shape (B, experts), and no penalty."""
        return self.linear(self.view(x)).softmax(dim=1), None


def mixture(weights: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """Σ_e w_e x_e, with weights of its own for every sample.

    Args:
        weights: Shape (B, E).
        experts: E tensors of shape (B, ...).
    """
    return reduce(add, (_like(weight, x) * x for weight, x in zip(weights.unbind(1), experts, strict=True)))


def _like(weight: Tensor, x: Tensor) -> Tensor:
    return weight.view(-1, *(1,) * (x.ndim - 1))


def count(name: str, value: int, least: int = 1) -> int:
    """A number of experts or selectors.

    Args:
        name: Of the option.
        value: As given.
        least: The smallest one that makes sense.

    Raises:
        IsonomyError: It is smaller, or no whole number.
    """
    if not isinstance(value, int) or value < least:
        raise IsonomyError(f"{name}={value!r} must be a whole number from {least}.")
    return value


class Mixture(nn.Module):
    """Shared and own experts, each a whole encoder, and a gate for each task over those that it may use.

    A single task has one expert and no gate; where a task may use one expert only, it has no gate either.

    Args:
        encoder: Makes an expert.
        heads: For each task, what makes its head.
        seed: Of the initial weights.
        shared: How many experts all tasks use.
        own: How many further ones each task has for itself.
        gate: Makes a gate over so many experts: from images to weights (B, experts) and a penalty or None.

    Raises:
        IsonomyError: There is no task.
    """

    def __init__(
        self,
        encoder: Callable[[], nn.Module],
        heads: Mapping[str, Callable[[], nn.Module]],
        seed: int,
        shared: int,
        own: int,
        gate: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        if len(heads) == 1:
            shared, own = 1, 0
        self.shared = nn.ModuleList()
        for number in range(shared):
            with drawn(seed, "expert", number):
                self.shared.append(encoder())
        self.own = nn.ModuleDict({task: nn.ModuleList() for task in heads})
        self.gates = nn.ModuleDict()
        for task in heads:
            experts: Any = self.own[task]
            for number in range(own):
                with drawn(seed, "expert", task, number):
                    experts.append(encoder())
            if shared + own > 1:
                with drawn(seed, "gate", task):
                    self.gates[task] = gate(shared + own)
        self.heads = sharing.make_heads(heads, seed)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The shared experts' parameters."""
        return self.shared.parameters()

    def last_layer(self) -> list[nn.Parameter]:
        """Those of each shared expert's last layer."""
        return list(chain.from_iterable(map(sharing.last_layer, self.shared)))

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> Output:
        """The predictions, and the sum of the tasks' penalties where the gates have one.

        Args:
            x: Images.
            tasks: Only these are computed, with the shared experts; None for all.

        Raises:
            IsonomyError: A task is unknown.
        """
        chosen = sharing.wanted(self.heads, tasks)
        shared = [sharing.run(expert, x) for expert in self.shared]
        predictions, penalties = {}, []
        for task in chosen:
            own: Any = self.own[task]
            experts = shared + [sharing.run(expert, x) for expert in own]
            head = self.heads[task]
            if task not in self.gates:
                predictions[task] = sharing.predict(head, experts[0])
                continue
            weights, penalty = self.gates[task](x)
            if penalty is not None:
                penalties.append(penalty)
            mixed = {index: mixture(weights, [maps[index] for maps in experts]) for index in sharing.reads(head)}
            predictions[task] = sharing.predict(head, mixed)
        return Output(None, predictions, penalty=reduce(add, penalties) if penalties else None)
