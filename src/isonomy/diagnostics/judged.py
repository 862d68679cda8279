"""The numbers that rules judge: the looks that count, and the tasks that are alive in them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from isonomy.diagnostics.recording import Recording

# Ours: the first steps of a training are unlike the rest, and a median of fewer looks than these is no median.
FEWEST = 5
# Ours: what float32 can still tell from 0 beside numbers of this size.
DEAD = 1e-8
# Ours: nearly all looks, so that a batch in which a unit fires once does not hide it.
NEARLY_ALL = 0.9


def excerpt(recording: Recording, looks: Tensor) -> Recording:
    """The recording of some of its looks.

    Args:
        recording: Of N looks.
        looks: Their positions, shape (M,), int64.
    """
    names = ("steps", "losses", "loss_weights", "weights", "norms", "cosines", "seconds", "skipped")
    return replace(recording, **{name: getattr(recording, name)[looks] for name in names})


def recent(recording: Recording) -> Recording:
    """Its second half, of ``FEWEST`` looks at least: how the training is now and not how it began."""
    count = len(recording)
    return excerpt(recording, torch.arange(count - min(count, max((count + 1) // 2, FEWEST)), count))


def beginning(recording: Recording) -> Recording:
    """Its first look, when no task has been learnt yet."""
    return excerpt(recording, torch.arange(1))


def median(values: Tensor) -> Tensor:
    """Over the looks, those that are there; of an even number the lower one; NaN where there is none."""
    return values.nanmedian(0).values


def others(values: Tensor) -> Tensor:
    """For each task what the other tasks have, shape (N, T, T), from (N, T): NaN on the diagonal."""
    size = values.shape[1]
    itself = torch.eye(size, dtype=torch.bool)
    return values[:, None].expand(-1, size, -1).masked_fill(itself, torch.nan)


def largest(values: Tensor) -> Tensor:
    """Over the last dimension, of those that are there; NaN where there is none."""
    found = values.nan_to_num(nan=-torch.inf, posinf=torch.inf).amax(-1)
    return found.where(found > -torch.inf, torch.nan)


def living(looks: Recording) -> Recording:
    """The same looks without tasks that have no gradient, or are solved, and without numbers that are not finite."""
    solved = (looks.norms == 0) & (looks.losses == 0)
    gone = dead(looks) | solved | ~looks.norms.isfinite()
    either = gone[:, None] | gone[:, :, None]
    return replace(
        looks,
        norms=looks.norms.masked_fill(gone, torch.nan),
        weights=finite(looks.weights).masked_fill(gone, torch.nan),
        cosines=looks.cosines.masked_fill(either, torch.nan),
    )


def finite(values: Tensor) -> Tensor:
    """The finite ones; NaN for the others."""
    return values.where(values.isfinite(), torch.nan)


def relative(looks: Recording) -> Tensor:
    """Each task's gradient norm relative to the largest of a look, both divided by their losses, shape (N, T)."""
    # A loss in another unit has a small gradient and is alive.
    norms, losses = finite(looks.raw_norms), median(finite(looks.losses).abs())
    known = bool(((losses > 0) | norms.isnan().all(0)).all())
    sizes = norms / losses if known else norms
    top = largest(sizes)[:, None]
    return torch.where(top > 0, sizes / top, sizes)


def dead(looks: Recording) -> Tensor:
    """Tasks whose gradients are 0, or all but 0, in nearly all looks though their losses are not; shape (T,)."""
    sizes = relative(looks)
    silent = (sizes < DEAD) & ~(looks.losses == 0)
    seen = (~sizes.isnan()).sum(0)
    return (silent.sum(0) >= NEARLY_ALL * seen) & (seen > 0)
