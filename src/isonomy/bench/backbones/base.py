"""What every backbone offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn


class Backbone(nn.Module, ABC):
    """A network from images or molecules to the maps that heads read.

    ``forward`` gives a list of all maps, from shallow to deep; where there is no grid, of one vector a sample.

    Attributes:
        channels: Of each map.
        strides: Input pixels per pixel of each map; empty where there is no grid.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    @abstractmethod
    def last_layer(self) -> list[nn.Parameter]:
        """The parameters of the last shared layer, at which methods may probe."""
