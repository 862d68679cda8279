"""What is reduced over the processes of a data-parallel run; nothing when there is one.

Every process sees a part of the batch and is to get the gradient that one process would compute on all of it. Losses
are taken to be means over equally many samples on every process, the rule of ``DistributedDataParallel`` itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes train together; 1 when ``torch.distributed`` is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean(tensor: Tensor) -> Tensor:
    """The mean over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
        tensor.div_(world_size())
    return tensor


def agree(flags: Sequence[bool], device: torch.device) -> bool:
    """Whether all processes have the same flags."""
    if world_size() == 1:
        return True
    count = torch.tensor(flags, dtype=torch.int64, device=device)
    dist.all_reduce(count)
    return bool(((count == 0) | (count == world_size())).all())


def mean_rows(rows: list[list[Tensor]]) -> list[list[Tensor]]:
    """The rows of J at the parameters, as one process would have them; copies, since autograd may alias its results."""
    return [[mean(part.clone()) for part in row] for row in rows] if world_size() > 1 else rows


def feature_gramian(matrix: Tensor) -> Tensor:
    """G of the whole batch from each process's G at its part of the feature, in place.

    Samples of different processes are different coordinates of the feature, so inner products add up; the mean over the
    whole batch divides each sample's gradient by the number of processes, and G by its square.
    """
    if world_size() > 1:
        dist.all_reduce(matrix)
        matrix.div_(world_size() ** 2)
    return matrix
