"""Mean losses over epochs, for the methods that compare a loss with what it was."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isonomy.errors import IsonomyError


class EpochMeans(nn.Module):
    """The mean loss of every task over the running epoch; all batches count alike.

    Args:
        tasks: T.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(tasks, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(tasks, dtype=torch.int64))

    def add(self, losses: Tensor, active: Tensor) -> None:
        """Takes in a batch: losses and their tasks' positions, each of shape (K,)."""
        self.sums[active] += losses
        self.counts[active] += 1

    def read(self) -> Tensor:
        """The means so far, shape (T,); NaN for a task that had no loss."""
        return self.sums / self.counts

    def clear(self) -> None:
        """Begins the next epoch."""
        self.sums = torch.zeros_like(self.sums)
        self.counts = torch.zeros_like(self.counts)


class EpochReference(nn.Module):
    """The mean losses of one early epoch, kept for good.

    A task that has no loss in that epoch gets its reference from the first later epoch in which it has one.

    Args:
        tasks: T.
        epoch: Which epoch, counted from 0.
    """

    values: Tensor
    epochs: Tensor

    def __init__(self, tasks: int, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch
        self.means = EpochMeans(tasks)
        self.register_buffer("values", torch.full((tasks,), torch.nan, dtype=torch.float64))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    def epoch_end(self, method: str) -> None:
        """Counts the epoch and keeps its means if it is the one.

        Raises:
            IsonomyError: A mean that was to be kept is 0, and nothing can be measured in units of it.
        """
        if self.epochs >= self.epoch:
            values = torch.where(self.values.isnan(), self.means.read(), self.values)
            zeros = (values == 0).nonzero().flatten().tolist()
            if zeros:
                raise IsonomyError(
                    f"{method}: the losses of task number {zeros[0]} (from 0) were 0 for an epoch, which later ones "
                    "cannot be divided by: train without this task, or use a loss that is positive."
                )
            self.values = values
        self.epochs += 1
        self.means.clear()

    def of(self, losses: Tensor, active: Tensor) -> Tensor:
        """The references of these tasks, shape (K,); of one that has none yet, its loss of this batch."""
        values = self.values[active]
        return torch.where(values.isnan(), losses.detach(), values)


def require_epochs(method: str, **epochs: int) -> None:
    """Raises an error unless these options are epochs, counted from 0."""
    for option, epoch in epochs.items():
        if not isinstance(epoch, int) or epoch < 0:
            raise IsonomyError(f"{method}: {option}={epoch!r} must be an epoch, counted from 0, such as {option}=1.")


def require_rate(method: str, learning_rate: float | None) -> None:
    """Raises an error unless a learning rate is None or a number of 0 or more."""
    wrong = isinstance(learning_rate, list | tuple | str)
    if learning_rate is not None and (wrong or not 0 <= learning_rate < float("inf")):
        raise IsonomyError(
            f"{method}: learning_rate={learning_rate!r} must be a number of 0 or more, like scheduler.get_last_lr()[0]."
        )
