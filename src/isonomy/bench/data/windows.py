"""How ATRC, InvPT and what follows them train on an image, and how they judge it: windows of one size."""

from __future__ import annotations

import torch

from isonomy.bench.backbones.inputs import IMAGENET
from isonomy.bench.data.photometric import photometric
from isonomy.bench.data.transforms import Kinds, Sample, flipped, padded, random_scale_crop


def augmented(sample: Sample, kinds: Kinds, draws: torch.Generator, size: tuple[int, int]) -> Sample:
    """A scale from 0.5 to 2, a varied window, a mirror, other light and colours, in this order.

    Args:
        sample: As ``transforms`` describes it; not changed.
        kinds: Of each label.
        draws: Where random numbers come from.
        size: Height and width that the window has at most.
    """
    window = random_scale_crop(sample, kinds, draws, size)
    if torch.rand((), generator=draws) < 0.5:
        window = flipped(window, kinds)
    return {**window, "image": photometric(window["image"], draws)}


def centred(sample: Sample, kinds: Kinds, size: tuple[int, int]) -> Sample:
    """The sample in the middle of one that is as large as networks get it.

    Args:
        sample: As ``transforms`` describes it; not changed.
        kinds: Of each label.
        size: Height and width.

    Raises:
        IsonomyError: The sample is larger than that.
    """
    inside = {"image": torch.ones_like(sample["image"])}
    outside = 1 - padded(inside, kinds, size)["image"]
    # Those codes pad images that are normalised already, with 0: the mean of ImageNet's.
    grey = outside.new_tensor(IMAGENET[0]).view(3, 1, 1) * outside
    result = padded(sample, kinds, size)
    return {**result, "image": result["image"] + grey}
