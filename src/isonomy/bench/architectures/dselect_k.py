"""DSelect-k: experts that all tasks use, of which every task learns to select k."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from operator import mul

import torch
from torch import Tensor, nn

from isonomy.bench.architectures.experts import GateInput, Mixture, View, count
from isonomy.errors import IsonomyError

# Weight of the entropy in the penalty, and what keeps its logarithm and the reciprocal finite.
ENTROPY, SMALL = 1e-6, 1e-6


def smooth_step(v: Tensor, gamma: float) -> Tensor:
    """A cubic step: 0 up to -γ/2, 1 from γ/2, with a continuous derivative.

    Args:
        v: Any shape.
        gamma: Its width γ.
    """
    inside = v.clamp(-gamma / 2, gamma / 2)
    return -2 * inside**3 / gamma**3 + 3 * inside / (2 * gamma) + 0.5


class Selector(nn.Module):
    """A mixture of k selections, each of one expert by a binary code whose bits are smooth steps of linear functions.

    Args:
        view: What it reads.
        k: How many selections.
        gamma: Width of the steps.
        experts: How many experts there are, at least two.
    """

    codes: Tensor

    def __init__(self, view: View, k: int, gamma: float, experts: int) -> None:
        super().__init__()
        bits = (experts - 1).bit_length()
        self.k, self.gamma, self.full = k, gamma, experts == 2**bits
        self.view = view
        self.bits, self.mixing = nn.Linear(view.width, k * bits), nn.Linear(view.width, k)
        for layer, bound in ((self.bits, gamma / 100), (self.mixing, 0.05)):
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound)
        codes = torch.arange(experts)[:, None] >> torch.arange(bits) & 1
        self.register_buffer("codes", codes.bool(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of images (B, C, H, W), shape (B, experts), and the penalty, 0-d.

        The penalty is the mean over the batch of a small multiple of the selections' entropies, which draws each to one
        expert; where the experts are no power of two, plus the reciprocal of the weight that falls on codes of experts.
        """
        view = self.view(x)
        steps = smooth_step(self.bits(view).unflatten(1, (self.k, 1, -1)), self.gamma)
        selections = reduce(mul, torch.where(self.codes, steps, 1 - steps).unbind(-1))
        weights = (self.mixing(view).softmax(dim=1)[..., None] * selections).sum(1)
        penalty = -ENTROPY * (selections * (selections + SMALL).log()).sum(dim=(1, 2)).mean()
        if not self.full:
            penalty = penalty + (1 / (selections.sum(2) + SMALL)).sum(1).mean()
        return weights, penalty


class DSelectK(Mixture):
    """Every task reads a mixture of at most k experts that it selects image by image.

    Hazimeh et al., "DSelect-k: differentiable selection in the mixture of experts with applications to multi-task
    learning", NeurIPS 2021. The regulariser of its selections, summed over the tasks, is the output's penalty. A single
    task has one expert and no gate.

    Args:
        encoder: Makes an expert: a backbone, or any module that returns one tensor.
        heads: For each task, what makes its head.
        seed: Of the initial weights.
        experts: How many, at least two.
        k: How many of them a task may select.
        gamma: Width of the smooth steps.
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
        k: int = 2,
        gamma: float = 1.0,
        gate_input: GateInput = "pooled",
        image: Sequence[int] = (3,),
    ) -> None:
        if not gamma > 0:
            raise IsonomyError(f"gamma={gamma!r} must be positive: it is the width of a step.")
        if count("k", k) > count("experts", experts, least=2):
            raise IsonomyError(f"k={k} is more than there are experts, {experts}: select at most all of them.")
        gate = partial(Selector, View(image, gate_input), k, gamma)
        super().__init__(encoder, heads, seed, shared=experts, own=0, gate=gate)
