"""The scalar that hands finished gradients to ``backward``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from isonomy.errors import IsonomyError


class _Handover(torch.autograd.Function):
    """A scalar whose backward hands on gradients that are already there, times the incoming one."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, finished: list[Tensor], scale: float, *targets: Tensor) -> Tensor:
        ctx.finished, ctx.scale = finished, scale
        return value.clone()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise IsonomyError(
                "create_graph=True: the balanced loss carries finished gradients and cannot be differentiated twice; "
                "put the term that needs second derivatives into one of the losses."
            )
        if ctx.finished is None:
            raise IsonomyError(
                "The balanced loss was backpropagated already and its gradients are handed on only once: "
                "call the balancer again."
            )
        finished, ctx.finished = ctx.finished, None
        factor = incoming / ctx.scale
        # Reading a number costs nothing on a CPU and saves a pass over every gradient; on a GPU it would be a wait.
        if factor.device.type != "cpu" or factor != 1:
            # Float16 may hold the product though it does not hold the factor, such as a GradScaler's 65536.
            wide = [torch.promote_types(gradient.dtype, factor.dtype) for gradient in finished]
            finished = [(g.to(dtype) * factor.to(dtype)).to(g.dtype) for g, dtype in zip(finished, wide, strict=True)]
        return (None, None, None, *finished)


def hand_over(value: Tensor, gradients: dict[Tensor, Tensor], scale: float = 1.0) -> Tensor:
    """A 0-d tensor with a given value and given gradients.

    Args:
        value: Shape ().
        gradients: For each tensor that is to receive one, its gradient times ``scale``.
        scale: What the gradients were multiplied by on the way, as by a ``GradScaler``.

    Returns:
        The value; its ``backward`` gives every tensor its gradient, times whatever it is itself multiplied by.
    """
    result: Tensor = _Handover.apply(value.detach(), list(gradients.values()), scale, *gradients)  # type: ignore[no-untyped-call]
    return result
