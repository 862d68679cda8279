"""What mirroring, scaling, cropping, padding and turning an image does to each kind of its labels.

A sample is an image (3, H, W), floating, under ``"image"``, with labels of the same height and width, last in their
shapes. Whatever moves its pixels moves all of them, and changes the values of those that measure the scene: a surface
that is mirrored faces the other way, and what looks larger is nearer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, nan, radians, sin

import torch
from torch import Tensor
from torch.nn import functional

from isonomy.errors import IsonomyError

Sample = dict[str, Tensor]


@dataclass(frozen=True)
class Kind:
    """What a label means, as far as geometry has to know.

    Attributes:
        pad: The value where an image does not reach.
        nearness: What values are multiplied by when the camera comes nearer by a factor, as a power of it.
        pixels: Whether values are lengths in pixels, along x alone or, with two channels, along x and y.
        vector: What a turn does to the channels: ``"up"`` for directions x, y, z with y upwards, ``"down"`` for dx, dy
            with y downwards, as rows are numbered; empty where values do not turn.
        smooth: Whether values are interpolated between pixels: ``""``, ``"unit"`` for directions that keep length 1,
            invalid ones staying so, or ``"plain"``.
    """

    pad: float
    nearness: int = 0
    pixels: bool = False
    vector: str = ""
    smooth: str = ""


Kinds = Mapping[str, Kind]

CLASSES = Kind(pad=-1)
MASK = Kind(pad=255)
DEPTH = Kind(pad=0, nearness=-1)
INVERSE = Kind(pad=0, nearness=1)
NORMAL = Kind(pad=0, vector="up")
SMOOTH_NORMAL = Kind(pad=0, vector="up", smooth="unit")
# As MTAN's and CAGrad's codes have it: neither of length 1 afterwards, nor zero beside invalid pixels.
RAW_NORMAL = Kind(pad=0, vector="up", smooth="plain")
OFFSETS = Kind(pad=nan, pixels=True, vector="down")
DISPARITY = Kind(pad=nan, pixels=True)
IMAGE = Kind(pad=0, smooth="plain")


def _kind(name: str, kinds: Kinds) -> Kind:
    return IMAGE if name == "image" else kinds[name]


def flipped(sample: Sample, kinds: Kinds) -> Sample:
    """The sample mirrored left to right.

    Args:
        sample: See above; not changed.
        kinds: Of each label.
    """
    found = {name: tensor.flip(-1) for name, tensor in sample.items()}
    return {name: _leftwards(tensor) if _kind(name, kinds).vector else tensor for name, tensor in found.items()}


def _leftwards(vectors: Tensor) -> Tensor:
    return torch.cat([-vectors[:1], vectors[1:]])


def resized(sample: Sample, kinds: Kinds, size: tuple[int, int], corners: bool = False) -> Sample:
    """The sample in another resolution: what is seen stays where it is, so depths do, and lengths in pixels do not.

    Args:
        sample: See above; not changed.
        kinds: Of each label.
        size: Height and width.
        corners: Whether the centres of the corner pixels stay where they are, or the corners themselves do.
    """
    return {name: _resized(tensor, _kind(name, kinds), size, corners) for name, tensor in sample.items()}


def scaled(sample: Sample, kinds: Kinds, factor: float) -> Sample:
    """The sample as from a camera that is nearer by the factor: larger, and what is far away as near.

    Args:
        sample: See above; not changed.
        kinds: Of each label.
        factor: Of height and width.
    """
    height, width = (max(round(side * factor), 1) for side in sample["image"].shape[-2:])
    return _nearer(resized(sample, kinds, (height, width)), kinds, factor)


def _nearer(sample: Sample, kinds: Kinds, factor: float) -> Sample:
    return {
        name: tensor * factor**power if (power := _kind(name, kinds).nearness) else tensor
        for name, tensor in sample.items()
    }


def _resized(tensor: Tensor, kind: Kind, size: tuple[int, int], corners: bool) -> Tensor:
    before = tuple(tensor.shape[-2:])
    if before == tuple(size):
        return tensor
    rows, columns = (_nearest(old, new, corners) for old, new in zip(before, size, strict=True))
    near = tensor[..., rows[:, None], columns]
    if kind.smooth:
        smooth = functional.interpolate(tensor[None], size=size, mode="bilinear", align_corners=corners)[0]
        return smooth if kind.smooth == "plain" else _unit(smooth, near)
    if kind.pixels:
        across, down = size[1] / before[1], size[0] / before[0]
        ratios = [across, down] if kind.vector else [across]
        return near * near.new_tensor(ratios).view(-1, 1, 1)
    return near


def _nearest(old: int, new: int, corners: bool) -> Tensor:
    """Which of ``old`` pixels lies nearest to each of ``new`` ones that cover them; in integers, so exactly."""
    position = torch.arange(new)
    if not corners:
        return (2 * position + 1) * old // (2 * new)
    steps = max(new - 1, 1)
    return (2 * position * (old - 1) + steps) // (2 * steps)


def _unit(smooth: Tensor, near: Tensor) -> Tensor:
    """Interpolated directions at length 1, 0 where the nearest pixel has none."""
    length = smooth.norm(dim=0, keepdim=True)
    valid = (near != 0).any(0, keepdim=True) & (length > 0)
    return torch.where(valid, smooth / length.where(valid, 1), 0)


def cropped(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """A window of the sample.

    Args:
        sample: See above; not changed.
        top: Its first row.
        left: Its first column.
        height: Of the window; beyond the image there is nothing.
        width: Likewise.
    """
    return {name: tensor[..., top : top + height, left : left + width] for name, tensor in sample.items()}


def padded(sample: Sample, kinds: Kinds, size: tuple[int, int]) -> Sample:
    """The sample in the middle of a larger one, in which nothing else is labelled.

    Args:
        sample: See above; not changed.
        kinds: Of each label.
        size: Height and width.

    Raises:
        IsonomyError: The sample is larger than that.
    """
    height, width = sample["image"].shape[-2:]
    down, across = size[0] - height, size[1] - width
    if down < 0 or across < 0:
        raise IsonomyError(
            f"An image of {height} x {width} does not fit into {size[0]} x {size[1]}: choose a larger size."
        )
    if not (down or across):
        return sample
    margins = [across // 2, across - across // 2, down // 2, down - down // 2]
    return {name: functional.pad(tensor, margins, value=_kind(name, kinds).pad) for name, tensor in sample.items()}


def rotated(sample: Sample, kinds: Kinds, degrees: float) -> Sample:
    """The sample turned about its middle, at the same size; nothing is labelled in the corners that come in.

    Args:
        sample: See above; not changed.
        kinds: Of each label.
        degrees: Anticlockwise.
    """
    height, width = sample["image"].shape[-2:]
    cosine, sine = cos(radians(degrees)), sin(radians(degrees))
    y = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    # Where in the old image each pixel of the new one comes from; rows go down, so the signs are those of clockwise.
    column = cosine * x - sine * y + (width - 1) / 2
    row = sine * x + cosine * y + (height - 1) / 2
    return {name: _turned(tensor, _kind(name, kinds), row, column, cosine, sine) for name, tensor in sample.items()}


def _turned(tensor: Tensor, kind: Kind, row: Tensor, column: Tensor, cosine: float, sine: float) -> Tensor:
    height, width = tensor.shape[-2:]
    # A thousandth of a pixel is rounding, not outside.
    inside = (row > -0.501) & (row < height - 0.499) & (column > -0.501) & (column < width - 0.499)
    rows, columns = ((at + 0.5).floor().long().clamp(0, side - 1) for at, side in ((row, height), (column, width)))
    near = tensor[..., rows, columns]
    found = near
    if kind.smooth:
        grid = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], dim=-1).to(tensor)
        found = functional.grid_sample(
            tensor[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
        )[0]
        found = found if kind.smooth == "plain" else _unit(found, near)
    if kind.vector:
        up = 1 if kind.vector == "up" else -1
        x, y = cosine * found[0] - up * sine * found[1], up * sine * found[0] + cosine * found[1]
        found = torch.cat([torch.stack([x, y]), found[2:]])
    return found.masked_fill(~inside, kind.pad)


def scale_crop_flip(
    sample: Sample,
    kinds: Kinds,
    draws: torch.Generator,
    scales: tuple[float, ...] = (1.0, 1.2, 1.5),
    mirror: float = 0.5,
) -> Sample:
    """MTAN's and CAGrad's augmentation: a window of 1 / scale of the image at its full size, then mirrored or not.

    Args:
        sample: See above; not changed.
        kinds: Of each label.
        draws: Where random numbers come from.
        scales: All as likely.
        mirror: Probability of the mirror.
    """
    height, width = sample["image"].shape[-2:]
    scale = scales[_below(len(scales), draws)]
    window = int(height / scale), int(width / scale)
    top, left = (_below(side - own + 1, draws) for side, own in zip((height, width), window, strict=True))
    nearer = resized(cropped(sample, top, left, *window), kinds, (height, width), corners=True)
    result = _nearer(nearer, kinds, scale)
    return flipped(result, kinds) if _uniform(draws) < mirror else result


def random_scale_crop(
    sample: Sample,
    kinds: Kinds,
    draws: torch.Generator,
    size: tuple[int, int],
    scales: tuple[float, float] = (0.5, 2.0),
    label: str = "seg",
    most: float = 0.75,
    tries: int = 10,
) -> Sample:
    """ATRC's and InvPT's: a scale in a range, then a window of at most a size in which no class covers nearly all.

    The last window is taken if none of the tries is varied enough.

    Args:
        sample: See above; not changed.
        kinds: Of each label.
        draws: Where random numbers come from.
        size: Height and width of the window; an image that is smaller stays whole in that direction.
        scales: Smallest and largest.
        label: Of the classes; a sample without is not looked at.
        most: What share of the labelled pixels a class has to stay below.
        tries: How often another window is drawn.
    """
    least, greatest = scales
    larger = scaled(sample, kinds, least + (greatest - least) * _uniform(draws))
    margins = [max(side - own, 0) for side, own in zip(larger["image"].shape[-2:], size, strict=True)]
    for _ in range(tries + 1):
        top, left = (_below(margin + 1, draws) for margin in margins)
        window = cropped(larger, top, left, *size)
        if label not in sample or _varied(window[label], most):
            break
    return window


def _varied(labels: Tensor, most: float) -> bool:
    counts = torch.unique(labels[labels != CLASSES.pad], return_counts=True)[1]
    return len(counts) > 1 and bool(counts.max() < most * counts.sum())


def _uniform(draws: torch.Generator) -> float:
    return float(torch.rand((), generator=draws, dtype=torch.float64))


def _below(count: int, draws: torch.Generator) -> int:
    """A number from 0, below the count."""
    return int(torch.randint(count, (), generator=draws))
