"""A network without a network: the point itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


class Point(nn.Module):
    """A point to be moved; it remembers where it started.

    Args:
        start: Its coordinates.
    """

    start: Tensor

    def __init__(self, start: Sequence[float]) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.tensor(start))
        self.register_buffer("start", torch.tensor(start))

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The coordinates."""
        yield self.position

    def forward(self) -> Tensor:
        """Where it is."""
        # A copy, because Fabric hooks into what a forward returns: hooks on the parameter itself would pile up.
        return self.position.clone()
