"""Ghost gradients: smaller matrices with the same inner products as a weight's gradients.

Where a weight meets the same inputs X for every task, shape (B, in), and D_t is what task t's backward pass brings to
the result, shape (B, out), the weight's gradient is XᵀD_t. With Xᵀ = QR, the columns of Q being orthonormal,

    ⟨XᵀD_s, XᵀD_t⟩ = ⟨Q R D_s, Q R D_t⟩ = ⟨R D_s, R D_t⟩,

so R D_t, shape (B, out), stands for the gradient, shape (in, out), wherever B < in, and no gradient need be formed.
Norms of per-example gradients have long been taken so, as ⟨XXᵀ, D_tD_tᵀ⟩: Goodfellow, "Efficient Per-Example Gradient
Computations", 2015; for convolutions Rochette, Manoel and Tramel, "Efficient Per-Example Gradient Computations in
Convolutional Neural Networks", 2019; as ghost clipping Li, Tramèr, Liang and Hashimoto, "Large Language Models Can Be
Strong Differentially Private Learners", ICLR 2022. R in place of XXᵀ does not square the rounding errors.

The rules read the autograd graph, not modules, so they hold for functional code and for weights that are used often. A
weight with a use that no rule knows has no ghost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from isonomy.engine.graph import Edge
from isonomy.gramian import full_precision, holds

# Numbers of each ghost that are made and multiplied at a time: few enough for a CPU's cache and for float32 sums.
_NUMBERS = 1 << 14

Parents = Mapping[Any, Sequence[tuple[Any, int]]]
"""For each node of a graph, the nodes that read it, and as which of their inputs."""

Compress = Callable[[Tensor], tuple[int, Callable[[Tensor, Tensor], object]]]
"""From X, shape (B, in), or indices, shape (B,), to the ghosts' length and to what writes the ghost of D."""


def _triangle(X: Tensor) -> tuple[int, Callable[[Tensor, Tensor], object]]:
    """R D."""
    R = torch.linalg.qr(X.mT, mode="r").R
    # Written to a tensor that is there, a product is out of autocast's reach.
    return len(R), lambda D, ghost: torch.mm(R, D, out=ghost)


def _sums(indices: Tensor) -> tuple[int, Callable[[Tensor, Tensor], object]]:
    """Sums of D over equal indices; zeros for -1, which learns nothing."""
    distinct, place = torch.unique(indices, return_inverse=True)
    learns = (indices >= 0).unsqueeze(1)
    return len(distinct), lambda D, ghost: ghost.zero_().index_add_(0, place, D * learns)


def _patches(node: Any, weight: Tensor) -> Tensor:
    """What each position of a convolution's output sees of its input, shape (B · positions, in · kernel)."""
    sizes = weight.shape[2:]
    x = functional.pad(node._saved_input, [width for width in reversed(node._saved_padding) for _ in range(2)])
    for axis, size in enumerate(sizes):
        stride, dilation = node._saved_stride[axis], node._saved_dilation[axis]
        x = x.unfold(2 + axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    axes = len(sizes)
    return x.movedim(1, 1 + axes).flatten(1 + axes).flatten(0, axes)


def _indices(node: Any, weight: Tensor) -> Tensor:
    """The rows that were looked up, shape (B,), -1 for the padding."""
    indices: Tensor = node._saved_indices.flatten()
    return indices.masked_fill(indices == node._saved_padding_idx, -1)


@dataclass(frozen=True)
class Rule:
    """How a node uses a weight.

    Attributes:
        saved: The name under which it keeps what the weight meets.
        axis: Of its result, the one that the weight gives.
        inputs: From the node and the weight to X, shape (B, in), or to indices, shape (B,).
        compress: What makes the ghosts.
        turned: Whether the weight's gradient is DᵀX, not XᵀD.
        fits: Whether the rule holds for this very node.
    """

    saved: str
    axis: int
    inputs: Callable[[Any, Tensor], Tensor]
    compress: Compress = _triangle
    turned: bool = False
    fits: Callable[[Any], bool] = lambda node: True


RULES = {
    ("AddmmBackward0", 2): Rule("mat1", 1, lambda node, _: node._saved_mat1, fits=lambda node: node._saved_alpha == 1),
    ("MmBackward0", 1): Rule("self", 1, lambda node, _: node._saved_self),
    ("MmBackward0", 0): Rule("mat2", 0, lambda node, _: node._saved_mat2.T, turned=True),
    ("ConvolutionBackward0", 1): Rule(
        "input", 1, _patches, fits=lambda node: node._saved_groups == 1 and not node._saved_transposed
    ),
    ("EmbeddingBackward0", 0): Rule(
        "indices", -1, _indices, _sums, fits=lambda node: not node._saved_sparse and not node._saved_scale_grad_by_freq
    ),
}
"""By a node's name, and by which of its inputs the weight is."""

_ON_THE_WAY = ("TBackward0", "ToCopyBackward0")  # from a weight to its use: transposed, or cast by autocast


@dataclass(frozen=True)
class Use:
    """A node that uses a weight, as it is or through transposes and casts.

    Attributes:
        node: The node.
        rule: What is known of it.
        turned: As in the rule, the transposes counted.
    """

    node: Any
    rule: Rule
    turned: bool

    @property
    def edge(self) -> Edge:
        """Where the gradient of the node's result arrives."""
        return self.node, 0

    @property
    def shape(self) -> tuple[int, int]:
        """Of D, (B, out)."""
        shape = self.node._input_metadata[0].shape
        return math.prod(shape) // max(shape[self.rule.axis], 1), shape[self.rule.axis]


@dataclass(frozen=True)
class Ghost:
    """A weight whose gradients need not be formed.

    Attributes:
        weight: The weight.
        uses: All its uses, of one kind.
        bypassed: The nodes from the weight to them, which backward passes need not run.
    """

    weight: Tensor
    uses: list[Use]
    bypassed: list[Any]

    @property
    def height(self) -> int:
        """Of D, all uses together: B."""
        return sum(use.shape[0] for use in self.uses)

    def work(self, tasks: int) -> int:
        """Multiplications to make R, and the ghosts of so many tasks."""
        out = self.uses[0].shape[1]
        return self.height**2 * (self.weight.numel() // out + tasks * out)

    @torch.no_grad()
    def gramian(self, arrived: Sequence[Sequence[Tensor | None]]) -> Tensor:
        """The inner products of the K tasks' gradients, shape (K, K), float64.

        Args:
            arrived: For each task, what its backward pass brought to each use.
        """
        present = [task for task, parts in enumerate(arrived) if any(part is not None for part in parts)]
        G = torch.zeros(len(arrived), len(arrived), dtype=torch.float64, device=self.weight.device)
        if present:
            outputs = [self._outputs(arrived[task]) for task in present]
            part = self._products(outputs, torch.float32 if full_precision() else torch.float64)
            if G.device.type == "cpu" and not holds(part):
                part = self._products(outputs, torch.float64)
            index = torch.tensor(present, device=G.device)
            G[index[:, None], index] = part.to(G.device)
        return G

    def _outputs(self, parts: Sequence[Tensor | None]) -> Tensor:
        """D of all uses, shape (B, out), zeros where nothing arrived."""
        like = next(part for part in parts if part is not None)
        shaped = [
            like.new_zeros(use.shape) if part is None else part.movedim(use.rule.axis, -1).reshape(use.shape)
            for use, part in zip(self.uses, parts, strict=True)
        ]
        return torch.cat(shaped) if len(shaped) > 1 else shaped[0]

    def _products(self, outputs: Sequence[Tensor], narrowest: torch.dtype) -> Tensor:
        """The inner products of the ghosts, of which a few columns are there at a time."""
        inputs = torch.cat([use.rule.inputs(use.node, self.weight) for use in self.uses])
        wide = torch.promote_types(outputs[0].dtype, narrowest)
        length, shrink = self.uses[0].rule.compress(inputs.to(wide) if inputs.is_floating_point() else inputs)
        size, columns = len(outputs), outputs[0].shape[1]
        step = min(max(_NUMBERS // length, 16), columns)
        space = inputs.new_empty(size * length * step, dtype=wide)
        G = torch.zeros(size, size, dtype=torch.float64, device=inputs.device)
        exact = wide if G.device.type == "cpu" else G.dtype  # a GPU's sums are long
        for slices in zip(*(torch.split(D, step, dim=1) for D in outputs), strict=True):
            ghosts = space[: size * length * slices[0].shape[1]].view(size, length, -1)
            for D, ghost in zip(slices, ghosts, strict=True):
                shrink(D.to(wide), ghost)
            rows = ghosts.flatten(1).to(exact)
            G += torch.mm(rows, rows.T, out=rows.new_empty(size, size))
        return G


def readers_of(leaf: Any, parents: Parents) -> tuple[list[tuple[Any, int, bool]], list[Any]]:
    """Who reads a weight, as which input and whether transposed; and the nodes from the weight itself to them."""
    readers, bypassed, stack = [], [], [(leaf, False)]
    while stack:
        node, turned = stack.pop()
        bypassed.append(node)
        for parent, slot in parents[node]:
            name = type(parent).__name__
            if name in _ON_THE_WAY:
                stack.append((parent, turned != (name == "TBackward0")))
            else:
                readers.append((parent, slot, turned))
    return readers, bypassed


def ghost_of(leaf: Any, parents: Parents, tasks: int) -> Ghost | None:
    """The ghost of a weight, if there is one and it saves work.

    Args:
        leaf: The node that accumulates the weight's gradient.
        parents: Of the losses' graphs.
        tasks: How many gradients there will be, K.
    """
    weight: Tensor = leaf.variable
    if not weight.is_floating_point() or not weight.numel():
        return None
    uses = []
    readers, bypassed = readers_of(leaf, parents)
    for node, slot, turned in readers:
        rule = RULES.get((type(node).__name__, slot))
        if rule is None or not rule.fits(node) or not _at_hand(node, rule):
            return None
        uses.append(Use(node, rule, turned != rule.turned))
    if len({(use.rule.compress, use.turned) for use in uses}) != 1:
        return None
    ghost = Ghost(weight, uses, bypassed)
    # R and K products with it, in place of K products with X.
    return ghost if 0 < ghost.work(tasks) < tasks * ghost.height * weight.numel() else None


def _at_hand(node: Any, rule: Rule) -> bool:
    """Whether what the weight meets is dense, and kept; under activation checkpointing every look computes it anew."""
    if getattr(getattr(node, f"_raw_saved_{rule.saved}"), "unpack_hook", None) is not None:
        return False
    return bool(getattr(node, f"_saved_{rule.saved}").layout == torch.strided)
