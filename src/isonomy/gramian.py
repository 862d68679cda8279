"""Task gradients as norms and cosines: the common currency of the gradient balancers.

A raw float32 gramian loses directions as soon as gradient norms differ by 1e4; norms and cosines in float64 keep them
at any ratio.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Columns of J that are multiplied at a time: few enough for float32 sums, and, with so many numbers at the most, for a
# CPU's cache; enough to fill a GPU.
_COLUMNS_CPU, _COLUMNS_GPU, _NUMBERS = 1 << 14, 1 << 20, 1 << 18
# Squared norms between which products of float32 numbers neither vanish nor overflow.
_SMALLEST, _LARGEST = 1e-28, 1e36

Rows = Sequence[Sequence[Tensor]]
"""J as autograd hands it out: for each task, its gradient with respect to each shared tensor."""


@dataclass(frozen=True)
class Gramian:
    """The T x T inner products G = J Jᵀ of the task gradients, held as norms and cosines.

    Attributes:
        norms: Norms of the task gradients, shape (T,), float64.
        cosines: Pairwise cosines, shape (T, T), float64, ones on the diagonal; 0 where a norm is 0.
    """

    norms: Tensor
    cosines: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Gramian:
        """Splits a matrix of inner products, shape (T, T), or a stack of them, into norms and cosines."""
        matrix = matrix.detach().double()
        norms = matrix.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
        inverse = norms.reciprocal().nan_to_num_(nan=torch.nan, posinf=0.0)
        cosines = (matrix * inverse[..., None, :]).mul_(inverse[..., None])
        cosines = (cosines + cosines.mT).div_(2).clamp_(-1, 1)
        cosines.diagonal(dim1=-2, dim2=-1).fill_(1.0)
        return cls(norms, cosines)

    @property
    def matrix(self) -> Tensor:
        """G itself, shape (T, T), float64."""
        return self.cosines * self.norms * self.norms[:, None]

    def subset(self, index: Tensor) -> Gramian:
        """The gramian of the tasks at the positions ``index``, shape (K,)."""
        return Gramian(self.norms[index], self.cosines[index][:, index])

    def scaled(self, weights: Tensor) -> Gramian:
        """The gramian of diag(weights) J: G becomes diag(w) G diag(w)."""
        signs = torch.sign(weights)
        cosines = (self.cosines * signs * signs[:, None]).fill_diagonal_(1.0)
        return Gramian(self.norms * weights.abs(), cosines)

    def combined_norm(self, weights: Tensor) -> Tensor:
        """‖Jᵀw‖ for weights w of shape (T,), a 0-d tensor."""
        scaled = weights * self.norms
        return (scaled @ self.cosines @ scaled).clamp_min(0).sqrt()

    def alignment(self, weights: Tensor) -> Tensor:
        """Cosine of each task's gradient with the aggregate Jᵀw, shape (T,); 0 where either vanishes."""
        norm = self.combined_norm(weights)
        cosines = (self.cosines @ (weights * self.norms)) / norm
        return torch.where((norm == 0) | (self.norms == 0), 0.0, cosines.clamp(-1, 1))

    def conflicts(self) -> Tensor:
        """How many pairs of tasks have gradients more than 90 degrees apart, a 0-d integer tensor."""
        return torch.triu(self.cosines < 0, diagonal=1).sum()


def gramian(rows: Rows) -> Tensor:
    """G = J Jᵀ, accumulated tensor by tensor in float64.

    Args:
        rows: T rows of gradients, one tensor per shared tensor.

    Returns:
        The matrix of inner products, shape (T, T), float64. One pass over J; exact to float64 for float64 gradients,
        and to 1e-6 of the norms for others, of which a single float32 product of 1e7 columns would lose 3e-4.
    """
    # A GPU's sums are long, and looking whether they have held would wait for it.
    if rows[0][0].device.type == "cpu" and full_precision() and holds(G := _products(rows, torch.float32)):
        return G
    return _products(rows, torch.float64)


def gramians(rows: Rows) -> Tensor:
    """The inner products at each of S shared tensors by itself, shape (S, T, T), float64; ``gramian`` is their sum."""
    return torch.stack([gramian([[part] for part in parts]) for parts in zip(*rows, strict=True)])


def full_precision() -> bool:
    """Whether products of float32 matrices are what they say: less is meant for the model, not for its gramian."""
    return torch.get_float32_matmul_precision() == "highest"


def holds(G: Tensor) -> bool:
    """Whether no product of float32 numbers that counts can have vanished or overflowed in a gramian."""
    return all(_SMALLEST < squared < _LARGEST for squared in G.diagonal().tolist())


def _products(rows: Rows, narrowest: torch.dtype) -> Tensor:
    """Inner products of few columns, at least as precise as ``narrowest``; their sums in float64."""
    size, first = len(rows), rows[0][0]
    G = torch.zeros(size, size, dtype=torch.float64, device=first.device)
    columns = min(_COLUMNS_CPU, _NUMBERS // size + 1) if first.device.type == "cpu" else _COLUMNS_GPU
    for parts in zip(*rows, strict=True):
        vectors = [flat(part) for part in parts]
        wide = functools.reduce(torch.promote_types, (vector.dtype for vector in vectors), narrowest)
        product = torch.empty(size, size, dtype=wide, device=G.device)
        for start in range(0, len(vectors[0]), columns):
            block = torch.stack([vector[start : start + columns] for vector in vectors]).to(wide)
            # Written to a tensor of its own, a product is out of autocast's reach.
            G.add_(torch.mm(block, block.T, out=product))
    return G


def flat(part: Tensor) -> Tensor:
    """The numbers of a tensor in order; complex ones as pairs, whose inner product is the real one that counts."""
    # What was conjugated on the way down may be so by a flag only, and has no such view then.
    return (torch.view_as_real(part.resolve_conj()) if part.is_complex() else part).reshape(-1)


def finite(rows: Rows) -> Tensor:
    """Whether all numbers of a row are finite, shape (T,); one pass over J."""
    peaks = [
        torch.stack([part.abs().amax() if part.numel() else part.real.new_zeros(()) for part in row]).amax()
        for row in rows
    ]
    return torch.stack(peaks).isfinite()


def combine(rows: Rows, weights: Tensor) -> list[Tensor]:
    """Jᵀw, one tensor per shared tensor, in the gradients' own dtype.

    Args:
        rows: T rows of gradients.
        weights: Shape (T,), or (S, T) for weights of each shared tensor's own.

    Returns:
        The weighted sum of the rows; accumulated in float32 at least.
    """
    columns = zip(*rows, strict=True)
    return [weighted_sum(parts, own) for parts, own in zip(columns, weights.expand(len(rows[0]), -1), strict=True)]


def weighted_sum(parts: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Σ w_t x_t of T tensors x_t of one shape, in their own dtype; weights of shape (T,)."""
    wide = torch.promote_types(parts[0].dtype, torch.float32)
    first, *others = weights.to(parts[0].device, wide).unbind()
    total = parts[0].to(wide) * first
    for part, weight in zip(parts[1:], others, strict=True):
        total.addcmul_(part.to(wide), weight)
    return total.to(parts[0].dtype)
