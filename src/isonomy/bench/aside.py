"""Forward passes beside a training step, which leave no trace in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Aside:
    """A network as a function of its parameters, from the moment before a step's own forward pass.

    A pass beside the step draws the random numbers that the step's own pass will draw, so dropout leaves out the same
    units, and puts torch's generators back. It sees copies of the buffers, so running statistics are not moved.

    Args:
        network: What is trained.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.devices = sorted({p.device.index for p in network.parameters() if p.device.type == "cuda"})
        self.cpu, self.cuda = torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in self.devices]

    @contextmanager
    def model(self, parameters: Mapping[str, Tensor]) -> Iterator[Callable[..., Any]]:
        """The network's forward at other parameters.

        Args:
            parameters: By name; those that are left out are the network's own.
        """
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        with torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield lambda *inputs: torch.func.functional_call(self.network, {**buffers, **parameters}, inputs)
