"""What is reduced over the processes of a data-parallel run; nothing when there is one.

Every process sees a part of the batch and is to get the gradient that one process would compute on all of it. Losses
are taken to be means over equally many samples on every process, the rule of ``DistributedDataParallel`` itself.

What travels in a step of T tasks on W processes, in numbers that each process sends:

- losses, T: a method sees their means, since a logarithm of local losses would be another method;
- at a feature, T x T: samples of different processes are different coordinates, so inner products add up;
- at P parameters, for a method that needs the gramian alone, T·P + P, times (W − 1) / W: every process gets its slice
  of the mean rows of J, the slices' gramians add up, and the slices of the aggregate are gathered;
- at P parameters, for a method with a history or one that reads J, 2·T·P, times (W − 1) / W: every process keeps the
  whole mean rows, so that any one of them can save the state alone.

Rows travel in buckets, since a message for every tensor would cost more in latency than in bandwidth.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from isonomy.errors import ElsewhereError, IsonomyError
from isonomy.gramian import flat

# Numbers in a message: enough to hide its latency, few beside a model and for a cache.
_BUCKET = 1 << 20


def world_size() -> int:
    """How many processes train together; 1 when ``torch.distributed`` is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(tensor: Tensor) -> Tensor:
    """The sum over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def mean(tensor: Tensor) -> Tensor:
    """The mean over the processes, in place."""
    # Divided first, as float16 may not hold the sum.
    return total(tensor.div_(world_size())) if world_size() > 1 else tensor


@contextmanager
def together(learns: bool = True) -> Iterator[list[object]]:
    """Makes an error of one process an error of all, which would wait for it in the next reduction otherwise.

    Args:
        learns: Whether there is a next reduction; where there is none, as in evaluation, processes may be alone here.

    Yields:
        A list for what has to be the same on all processes, of things whose ``repr`` says it.

    Raises:
        IsonomyError: Another process has raised an error, or its list is another one.
    """
    alike: list[object] = []
    if not learns or world_size() == 1:
        yield alike
        return
    try:
        yield alike
    except Exception:
        most(dist.get_rank() + 1, 0, 0)
        raise
    mark = _mark(alike)
    failed, highest, lowest = most(0, mark, -mark)
    if failed:
        raise ElsewhereError(f"Process {failed - 1} has raised an error in this step, which says what is wrong.")
    if highest != -lowest:
        raise IsonomyError(
            "The processes take different steps, which cannot be averaged: give all of them the same tasks, batches, "
            "grad_scaler=, state and epoch_end(metrics); where their losses reach different shared parameters, pass "
            "shared=feature."
        )


def require_alike(what: object, said: str) -> None:
    """Raises an error on all processes unless something's ``repr`` is the same on each."""
    mark = _mark(what)
    highest, lowest = most(mark, -mark)
    if highest != -lowest:
        raise IsonomyError(said)


def _mark(what: object) -> int:
    return zlib.crc32(repr(what).encode())


def most(*numbers: int) -> list[int]:
    """The largest of each number over the processes."""
    # Where the backend works at all: gloo takes tensors of a CPU, NCCL those of a GPU alone.
    device = dist.get_backend_config().partition(":")[0]
    tensor = torch.tensor(numbers, dtype=torch.int64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [int(number) for number in tensor.tolist()]


def feature_gramian(matrix: Tensor) -> Tensor:
    """G of the whole batch from each process's G at its part of the feature, in place.

    Samples of different processes are different coordinates of the feature, so inner products add up; the mean over the
    whole batch divides each sample's gradient by the number of processes, and G by its square.
    """
    return total(matrix).div_(world_size() ** 2) if world_size() > 1 else matrix


def mean_rows(rows: list[list[Tensor]]) -> list[list[Tensor]]:
    """The rows of J at the parameters, as one process would have them.

    Args:
        rows: One a task, of tensors of the same shapes; the list is changed, so that old rows are freed on the way.
    """
    if world_size() > 1:
        for index, row in enumerate(rows):
            rows[index] = _empty(row)
            for bucket, old in zip(_buckets(rows[index]), _buckets(row), strict=True):
                _unpack(mean(torch.cat(old)), bucket)
    return rows


def scatter_rows(rows: list[list[Tensor]]) -> list[list[Tensor]]:
    """This process's slice of the rows that ``mean_rows`` would give: P / W numbers of each, one tensor a bucket.

    Args:
        rows: One a task, of tensors of the same shapes; the list is changed, so that old rows are freed on the way.
    """
    if world_size() > 1:
        for index, row in enumerate(rows):
            rows[index] = [_scatter(bucket) for bucket in _buckets(row)]
    return rows


def gather_row(slices: list[Tensor], like: Sequence[Tensor]) -> list[Tensor]:
    """The whole row of which every process has a slice.

    Args:
        slices: As ``scatter_rows`` makes them.
        like: Tensors of the shapes and dtypes that the row had.
    """
    if world_size() == 1:
        return slices
    row = _empty(like)
    for bucket, part in zip(_buckets(row), slices, strict=True):
        whole = part.new_empty(world_size(), len(part))
        dist.all_gather(list(whole), part)
        _unpack(whole.view(-1), bucket)
    return row


def _scatter(bucket: list[Tensor]) -> Tensor:
    """This process's slice of a bucket's mean over the processes, the last one filled up with zeros."""
    size = sum(piece.numel() for piece in bucket)
    sent = torch.cat([*bucket, bucket[0].new_zeros(-size % world_size())])
    received = torch.empty_like(sent)
    # Not reduce_scatter_tensor, which in gloo is an all-reduce, and sends twice as much.
    dist.all_to_all_single(received, sent)
    wide = torch.promote_types(sent.dtype, torch.float32)
    return received.view(world_size(), -1).mean(0, dtype=wide).to(sent.dtype)


def _buckets(row: Sequence[Tensor]) -> list[list[Tensor]]:
    """The numbers of a row as flat pieces, in order; those of a bucket have one dtype and device."""
    buckets: list[list[Tensor]] = []
    kind, room = None, 0
    for part in row:
        numbers = flat(part)
        for piece in torch.split(numbers, _BUCKET) if len(numbers) else ():
            if (piece.dtype, piece.device) != kind or len(piece) > room:
                buckets.append([])
                kind, room = (piece.dtype, piece.device), _BUCKET
            buckets[-1].append(piece)
            room -= len(piece)
    return buckets


def _unpack(message: Tensor, bucket: list[Tensor]) -> None:
    """Writes a message's numbers to the pieces of a bucket; what it was filled up with stays."""
    sizes = [len(piece) for piece in bucket]
    torch._foreach_copy_(bucket, torch.split(message[: sum(sizes)], sizes))


def _empty(like: Sequence[Tensor]) -> list[Tensor]:
    """Tensors to be written to through ``_buckets``, and so in the order of their elements."""
    return [torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in like]
