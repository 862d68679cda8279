"""What labels and predictions look like: each function makes an RGB image (H, W, 3), uint8."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Picture = NDArray[np.uint8]

# Successive hues of this step stay far apart however many there are.
GOLDEN = 0.618034


def classes(labels: Tensor) -> Picture:
    """Classes, each in a colour of its own; what is ignored is black.

    Args:
        labels: Shape (H, W); negative or 255 for ignored pixels.
    """
    numbers = labels.numpy()
    ignored = (numbers < 0) | (numbers == 255)
    tone = np.arange(256)
    palette = hsv_to_rgb(np.stack([tone * GOLDEN % 1, 0.45 + 0.2 * (tone % 3), 0.95 - 0.25 * (tone % 2)], axis=-1))
    return _bytes(np.where(ignored[..., None], 0.0, palette[np.where(ignored, 0, numbers)]))


def scores(logits: Tensor) -> Picture:
    """The most likely class of every pixel.

    Args:
        logits: Shape (K, H, W).
    """
    return classes(logits.argmax(0))


def distance(depth: Tensor, farthest: float) -> Picture:
    """Depth from dark, near, to bright; what is invalid is black.

    Args:
        depth: Shape (1, H, W); 0 is invalid.
        farthest: What is brightest.
    """
    values = depth[0].numpy()
    coloured = colormaps["viridis"](np.clip(values / farthest, 0, 1))[..., :3]
    return _bytes(np.where((values > 0)[..., None], coloured, 0.0))


def normals(directions: Tensor) -> Picture:
    """Surface normals, x, y and z as red, green and blue; what is invalid is black.

    Args:
        directions: Shape (3, H, W), of any length; zero vectors are invalid.
    """
    unit = functional.normalize(directions, dim=0)
    return _bytes((((unit + 1) / 2) * (unit != 0).any(0)).permute(1, 2, 0).numpy())


def steps(vectors: Tensor, farthest: float) -> Picture:
    """Steps from pixel to pixel, their direction as hue, long ones bright; what is invalid is black.

    Args:
        vectors: dx and dy, shape (2, H, W); NaN is invalid.
        farthest: The length that is brightest.
    """
    x, y = vectors.nan_to_num(0).numpy()
    turn = np.arctan2(y, x) / (2 * np.pi) % 1
    # The middle itself is not black.
    bright = 0.25 + 0.75 * np.clip(np.hypot(x, y) / farthest, 0, 1)
    valid = ~vectors.isnan().any(0).numpy()
    return _bytes(hsv_to_rgb(np.stack([turn, np.full_like(turn, 0.8), bright * valid], axis=-1)))


def mask(marked: Tensor) -> Picture:
    """Probabilities or marks, black for 0 and white for 1.

    Args:
        marked: Shape (H, W); outside of [0, 1] is clipped.
    """
    return _bytes(np.repeat(marked.float().numpy()[..., None], 3, axis=-1))


def logit(prediction: Tensor) -> Picture:
    """What a prediction of marks makes likely.

    Args:
        prediction: One logit, shape (1, H, W), or the two of a class against the rest, (2, H, W).
    """
    difference = prediction[0] if len(prediction) == 1 else prediction[1] - prediction[0]
    return mask(difference.sigmoid())


def _bytes(image: NDArray[np.floating]) -> Picture:
    scaled: Picture = (255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8)
    return scaled
