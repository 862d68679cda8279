"""A network in the precision that a sweep wants."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from isonomy.bench.architectures.output import Output

FULL = "32-true"
HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
PRECISIONS = (FULL, *HALVES)


class Precise(nn.Module):
    """A network under autocast, if it is wanted, whose predictions are float32 for the losses.

    The shared feature stays the tensor that the heads have read; Fabric's own wrapper would hand out a copy of it.

    Args:
        network: What is trained.
        precision: One of ``PRECISIONS``, which Fabric names so.
        device: ``"cpu"`` or ``"cuda"``.
    """

    def __init__(self, network: nn.Module, precision: str, device: str) -> None:
        super().__init__()
        self.network, self.reduced, self.device = network, HALVES.get(precision), device

    def __getattr__(self, name: str) -> Any:
        """What a data set asks of its own network."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)

    def context(self) -> AbstractContextManager[Any]:
        """Where forward passes run."""
        return nullcontext() if self.reduced is None else torch.autocast(self.device, self.reduced)

    def scaler(self) -> torch.amp.GradScaler | None:
        """What keeps float16's gradients from vanishing; other precisions need none."""
        return torch.amp.GradScaler(self.device) if self.reduced == torch.float16 else None

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The network's output."""
        with self.context():
            output = self.network(*inputs, **named)
        if self.reduced is None:
            return output
        full = apply_to_collection(output, Tensor, lambda tensor: tensor.float())
        return full._replace(feature=output.feature) if isinstance(output, Output) else full
