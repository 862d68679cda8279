"""What balancing has to know of ``torch.distributed.fsdp.fully_shard``, which shards parameters over the processes.

A sharded module's gradients are reduced by a callback of the root that it was wrapped under, which hooks on the outputs
of wrapped modules queue. At a feature that comes out of such a module, the balanced gradient runs through its hooks.
Gradients that are handed to parameters pass none, and would never be reduced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.autograd.graph import Node

# The node in front of a sharded module whose input needs a gradient.
INPUT = "RegisterPostBackwardFunctionBackward"


def is_sharded(tensor: Tensor) -> bool:
    """Whether a parameter is a shard, or what one was gathered from and has been freed since."""
    return hasattr(tensor, "device_mesh") or bool(tensor.numel() and not tensor.untyped_storage().size())


def under_other_roots(nodes: Iterable[Node], features: Sequence[Tensor]) -> bool:
    """Whether a sharded module above the features is under a root that the features' gradients do not run through."""
    groups = [node.param_group for node in nodes if type(node).__name__ == INPUT]  # type: ignore[attr-defined]
    if not groups:
        return False
    hooks = [hook for feature in features for hook in (feature._backward_hooks or {}).values()]
    roots = [getattr(getattr(hook, "__self__", None), "_comm_ctx", None) for hook in hooks]
    return any(all(group.comm_ctx is not root for root in roots) for group in groups)
