"""Steps that are not taken: losses and gradients at parameters beside the network's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]
# The T losses, shape (T,), float64, at parameters on a batch.
Losses = Callable[[Parameters, Any], Tensor]


def leaves(parameters: Parameters) -> dict[str, Tensor]:
    """The same values, cut off from where they come from and ready to be differentiated by."""
    return {name: value.detach().requires_grad_() for name, value in parameters.items()}


def gradient(value: Tensor, parameters: Parameters, retain: bool = False) -> dict[str, Tensor]:
    """The gradient of a value by parameters; zeros where it does not depend on one."""
    found = torch.autograd.grad(value, list(parameters.values()), retain_graph=retain, materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


def moved(parameters: Parameters, direction: Parameters, length: float) -> dict[str, Tensor]:
    """Parameters + length · direction."""
    return {name: value.detach() + length * direction[name] for name, value in parameters.items()}
