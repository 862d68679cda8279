"""Multi-gate mixture of experts: encoders that all tasks use, mixed by a gate a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import nn

from isonomy.bench.architectures.experts import Gate, GateInput, Mixture, View, count


class MMoE(Mixture):
    """Every task reads its own convex combination, image by image, of what all experts see.

    Ma et al., "Modeling task relationships in multi-task learning with multi-gate mixture-of-experts", KDD 2018. A
    single task has one expert and no gate.

    Args:
        encoder: Makes an expert: a backbone, or any module that returns one tensor.
        heads: For each task, what makes its head.
        seed: Of the initial weights.
        experts: How many.
        gate_input: What a gate reads: ``"pooled"``, averages of the image over 4 x 4 windows, or ``"image"``, all its
            numbers as in the paper, which for photographs makes a gate of hundreds of thousands of weights.
        image: Shape (C, H, W) of an image; (C,) will do where it is pooled.

    Raises:
        IsonomyError: There is no task, or an option is out of range.
    """

    def __init__(
        self,
        encoder: Callable[[], nn.Module],
        heads: Mapping[str, Callable[[], nn.Module]],
        seed: int,
        experts: int = 4,
        gate_input: GateInput = "pooled",
        image: Sequence[int] = (3,),
    ) -> None:
        gate = partial(Gate, View(image, gate_input))
        super().__init__(encoder, heads, seed, shared=count("experts", experts), own=0, gate=gate)
