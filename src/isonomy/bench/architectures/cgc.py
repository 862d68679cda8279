"""Customized gate control: shared experts and a task's own, mixed by a gate a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import nn

from isonomy.bench.architectures.experts import Gate, GateInput, Mixture, View, count


class CGC(Mixture):
    """Every task reads its own convex combination of what the shared experts and its own ones see.

    Tang et al., "Progressive layered extraction (PLE)", RecSys 2020, with one level. A single task has one expert and
    no gate.

    Args:
        encoder: Makes an expert: a backbone, or any module that returns one tensor.
        heads: For each task, what makes its head.
        seed: Of the initial weights.
        shared_experts: How many experts all tasks use.
        own_experts: How many further ones each task has for itself.
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
        shared_experts: int = 1,
        own_experts: int = 1,
        gate_input: GateInput = "pooled",
        image: Sequence[int] = (3,),
    ) -> None:
        shared, own = count("shared_experts", shared_experts), count("own_experts", own_experts)
        super().__init__(encoder, heads, seed, shared, own, gate=partial(Gate, View(image, gate_input)))
