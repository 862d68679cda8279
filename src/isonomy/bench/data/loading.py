"""Samples from files, in batches, by processes that read ahead if there are any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from isonomy.errors import IsonomyError

Sample = dict[str, Tensor]


def loaded(read: Callable[[int], Sample], batches: Iterable[list[int]], workers: int) -> Iterator[Sample]:
    """Batches of samples, one after the other.

    Args:
        read: Gives the sample of an index, tensors of the same shapes always; can be pickled.
        batches: The indices of each.
        workers: Processes that read ahead; batches do not depend on how many.

    Raises:
        IsonomyError: As ``read`` raised it, whichever process that was.
    """
    # With a generator of its own the loader draws no number that the network's dropout would have got.
    own = torch.Generator().manual_seed(0)
    for batch in DataLoader(
        _Reader(read), batch_sampler=batches, num_workers=workers, collate_fn=_collated, generator=own
    ):
        if isinstance(batch, IsonomyError):
            raise batch
        yield batch


class _Reader(Dataset[Sample | IsonomyError]):
    def __init__(self, read: Callable[[int], Sample]) -> None:
        self.read = read

    def __getitem__(self, index: int) -> Sample | IsonomyError:
        try:
            return self.read(index)
        except IsonomyError as error:
            # Raised in another process it would come out as a traceback in which nobody finds the file.
            return error


def _collated(samples: list[Sample | IsonomyError]) -> Sample | IsonomyError:
    for sample in samples:
        if isinstance(sample, IsonomyError):
            return sample
    batch: Sample = default_collate(samples)
    return batch
