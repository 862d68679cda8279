"""For methods that treat the gradients at each shared tensor, a group, by themselves or all of them as one."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from isonomy.errors import IsonomyError, unknown
from isonomy.gramian import Gramian, combine, gramians
from isonomy.stages import GradientBalancer, Measurement

Groups = Literal["model", "tensor"]


def group(balancer: GradientBalancer, method: str, groups: Groups) -> None:
    """Makes a balancer read the gradients themselves, at the parameters, if its groups are tensors.

    Raises:
        IsonomyError: ``groups`` is unknown.
    """
    if groups not in ("model", "tensor"):
        raise unknown(f"groups of {method}", groups, ("model", "tensor"))
    if groups == "tensor":
        balancer.jacobian, balancer.levels = True, ("parameters",)


def group_gramians(measurement: Measurement, method: str, known: int) -> Gramian:
    """Norms (S, K) and cosines (S, K, K) of the gradients in S groups.

    Args:
        measurement: With a jacobian if the groups are tensors.
        method: The name for errors.
        known: For how many groups there is state; 0 before the first step.

    Raises:
        IsonomyError: The number of groups has changed.
    """
    whole, jacobian = measurement.gramian, measurement.jacobian
    if jacobian is None:
        return Gramian(whole.norms[None], whole.cosines[None])
    stack = gramians(jacobian.rows)
    if known not in (0, len(stack)):
        raise IsonomyError(
            f"{method}: there are {len(stack)} shared tensors now and there were {known} before; "
            "build a new balancer when the shared part of the model changes."
        )
    return Gramian.of(stack)


def weigh_groups(measurement: Measurement, weights: Tensor) -> Tensor | list[Tensor]:
    """What ``forward`` returns for weights of shape (S, K): those of the one group, or the aggregate of the tensors."""
    return weights[0] if measurement.jacobian is None else combine(measurement.jacobian.rows, weights)
