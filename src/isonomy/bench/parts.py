"""Which part of a batch, and of an evaluation, is whose, where several processes train one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

from isonomy.distributed import world_size
from isonomy.errors import IsonomyError

T = TypeVar("T")


def rank() -> int:
    """Which of the processes this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def own(samples: Tensor) -> Tensor:
    """This process's part of a batch; all of it where there is one process.

    Args:
        samples: Indices, or draws, one a sample of the batch.

    Raises:
        IsonomyError: The parts would not be of one size, and gradients not those of the batch.
    """
    count = world_size()
    if len(samples) % count:
        raise IsonomyError(
            f"A batch of {len(samples)} samples cannot be shared by {count} processes: choose a batch_size and a "
            "number of --devices that divides it."
        )
    size = len(samples) // count
    return samples[rank() * size : (rank() + 1) * size]


def turns(chunks: Sequence[T]) -> Sequence[T]:
    """The chunks of a data set that this process judges; the sums of its metrics are added up over all.

    Args:
        chunks: Of the whole data set.
    """
    return chunks[rank() :: world_size()]
