"""Where an object's middle is, seen from each of its pixels: instance segmentation as a regression.

Kendall et al., "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics", CVPR 2018,
section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor


def offsets(instances: Tensor) -> Tensor:
    """The step from each pixel to the mean position of its instance's pixels, in pixels.

    Args:
        instances: Numbers of instances, integers (H, W); negative where a pixel belongs to none.

    Returns:
        dx, to the right, and dy, downwards, (2, H, W), float32; NaN where there is no instance.
    """
    found = torch.full((2, *instances.shape), torch.nan)
    inside = instances >= 0
    rows, columns = inside.nonzero(as_tuple=True)
    own = instances[inside].long()
    pixels = own.bincount()
    for channel, position in enumerate((columns.double(), rows.double())):
        middle = own.bincount(position) / pixels
        found[channel][inside] = (middle[own] - position).float()
    return found
