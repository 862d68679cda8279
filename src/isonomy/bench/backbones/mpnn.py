"""A message-passing network for small molecules, in torch alone.

Gilmer et al., "Neural message passing for quantum chemistry", ICML 2017, in the form that multi-task papers train on
QM9: edge-conditioned convolutions with a mean over the neighbours, a GRU, and Set2Set.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.backbones.base import Backbone

ROUNDS, STEPS = 3, 3


class Molecules(NamedTuple):
    """A batch of molecules, padded to the same number of atoms N.

    Attributes:
        x: What is known of each atom, (B, N, 11).
        edges: What is known of each pair, (B, N, N, 5), ``edges[b, i, j]`` for the message from atom j to atom i: four
            bond types (zeros where there is no bond) and the distance.
        mask: Which atoms there are, (B, N), bool. Every molecule has at least one.
    """

    x: Tensor
    edges: Tensor
    mask: Tensor


class EdgeConvolution(nn.Module):
    """h_i becomes W h_i + b + mean over j of Φ(e_ij) h_j, where a small network Φ makes a matrix of each edge.

    Args:
        width: Of the atoms' states.
        edge: Of the edges' attributes.
        hidden: Of the edge network's hidden layer.
    """

    def __init__(self, width: int, edge: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(edge, hidden)
        self.matrix = nn.Linear(hidden, width * width)
        self.root = nn.Linear(width, width)

    def weighted(self, edges: Tensor, pairs: Tensor) -> Tensor:
        """Edges (B, N, N, edge) and weights (B, N, N) of the mean to (B, N, N, hidden), the same in every round."""
        return functional.relu(self.hidden(edges)) * pairs[..., None]

    def forward(self, h: Tensor, weighted: Tensor, pairs: Tensor) -> Tensor:
        """States (B, N, width) of one round to those of the next."""
        width = h.shape[-1]
        # The matrix is linear in the hidden layer, so the mean over neighbours can be taken before it is applied: no
        # edge's matrix is ever formed.
        met = torch.einsum("bijk,bjc->bikc", weighted, h)
        messages = torch.einsum("bikc,kco->bio", met, self.matrix.weight.T.reshape(-1, width, width))
        plain = (pairs @ h) @ self.matrix.bias.view(width, width)
        states: Tensor = self.root(h) + messages + plain
        return states


class MPNN(Backbone):
    """Three rounds of messages among all atoms of a molecule, and one vector for the whole.

    With the widths of the papers it has 616,960 parameters.

    Attributes:
        channels: One number: the width of that vector.
        strides: Empty: a vector has none.

    Args:
        width: Of the atoms' states and of the result.
        hidden: Of the edge network's hidden layer.
        atom: Of what is known of each atom.
        edge: Of what is known of each pair.
    """

    def __init__(self, width: int = 64, hidden: int = 128, atom: int = 11, edge: int = 5) -> None:
        super().__init__()
        self.lin0 = nn.Linear(atom, width)
        self.convolution = EdgeConvolution(width, edge, hidden)
        self.gru = nn.GRUCell(width, width)
        self.lstm = nn.LSTMCell(2 * width, width)
        self.lin1 = nn.Linear(2 * width, width)
        self.channels = (width,)
        self.strides = ()

    def last_layer(self) -> list[nn.Parameter]:
        """The parameters of the last linear layer."""
        return list(self.lin1.parameters())

    def forward(self, molecules: Molecules) -> list[Tensor]:
        """One vector a molecule: (B, width)."""
        x, edges, mask = molecules
        pairs = (
            mask[:, :, None] & mask[:, None, :] & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        ).to(x)
        pairs = pairs / pairs.sum(dim=2, keepdim=True).clamp(min=1)
        h = functional.relu(self.lin0(x))
        weighted = self.convolution.weighted(edges, pairs)
        for _ in range(ROUNDS):
            messages = functional.relu(self.convolution(h, weighted, pairs))
            h = self.gru(messages.flatten(0, 1), h.flatten(0, 1)).view_as(h)
        return [functional.relu(self.lin1(self._together(h, mask)))]

    def _together(self, h: Tensor, mask: Tensor) -> Tensor:
        """Set2Set (Vinyals et al., "Order matters", ICLR 2016): states (B, N, width) to (B, 2 * width)."""
        whole = h.new_zeros(len(h), 2 * h.shape[-1])
        state = (h.new_zeros(len(h), h.shape[-1]),) * 2
        for _ in range(STEPS):
            state = self.lstm(whole, state)
            score = torch.einsum("bnc,bc->bn", h, state[0]).masked_fill(~mask, -torch.inf)
            read = torch.einsum("bn,bnc->bc", score.softmax(dim=1), h)
            whole = torch.cat([state[0], read], dim=1)
        return whole
