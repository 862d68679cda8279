"""Other light and other colours, which change an image and none of its labels."""

from __future__ import annotations

import torch
from torch import Tensor

# The ranges that ATRC and InvPT draw from; brightness is added, in steps of 255, and hue is turned, of a circle of 180.
BRIGHTNESS, HUE = 32 / 255, 18 / 180
CONTRAST = SATURATION = (0.5, 1.5)


def photometric(image: Tensor, draws: torch.Generator) -> Tensor:
    """An image with other brightness, contrast, saturation and hue, each with probability 1/2.

    Contrast comes before the colours or after them, as likely.

    Args:
        image: RGB in [0, 1], (3, H, W).
        draws: Where random numbers come from.
    """
    # All numbers are drawn at once, so what one change does not use no other one gets.
    coins = torch.rand(5, generator=draws, dtype=torch.float64) < 0.5
    light, contrast, saturation, hue = torch.rand(4, generator=draws, dtype=torch.float64).tolist()
    bright, contrasted, saturated, turned, early = coins.tolist()
    if bright:
        image = (image + BRIGHTNESS * (2 * light - 1)).clamp(0, 1)
    if contrasted and early:
        image = _contrast(image, contrast)
    if saturated:
        image = with_saturation(image, _between(SATURATION, saturation))
    if turned:
        image = with_hue(image, HUE * (2 * hue - 1))
    if contrasted and not early:
        image = _contrast(image, contrast)
    return image.clamp(0, 1)  # colours are computed with an error of rounding


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share


def _contrast(image: Tensor, share: float) -> Tensor:
    return (image * _between(CONTRAST, share)).clamp(0, 1)


def with_saturation(image: Tensor, factor: float) -> Tensor:
    """Colours further from grey, or nearer to it; the brightest channel stays.

    Args:
        image: RGB in [0, 1], (3, H, W).
        factor: Of HSV's saturation, which ends at 1.
    """
    value = image.amax(0)
    chroma = value - image.amin(0)
    limit = torch.where(chroma > 0, value / chroma.where(chroma > 0, 1), 1).clamp(max=factor)
    return value - (value - image) * limit


def with_hue(image: Tensor, turn: float) -> Tensor:
    """Colours turned around the circle of hues.

    Args:
        image: RGB in [0, 1], (3, H, W).
        turn: Share of the whole circle; 1/3 makes red green.
    """
    red, green, blue = image
    value, which = image.max(0)
    chroma = value - image.amin(0)
    between = torch.stack([(green - blue), (blue - red), (red - green)]).gather(0, which[None])[0]
    sixth = between / chroma.where(chroma > 0, 1) + 2 * which + 6 * turn
    channels = [(n + sixth) % 6 for n in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in channels])
