"""Losses of dense prediction: what a network's map costs against a label map.

A prediction of shape (B, K, h, w) has any resolution and is resized to the labels' (``resized``); one that has theirs
is taken as it is. All are sums over the valid pixels of a batch divided by their number. Where no pixel is valid a loss
is exactly 0 and so are its gradients, so a task that a batch says nothing about pulls nowhere. Predictions in half
precision are judged in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from isonomy.errors import IsonomyError, unknown

# Edges are rare: what a pixel on one counts for, and one off it.
EDGE, NO_EDGE = 0.95, 0.05


def resized(prediction: Tensor, size: tuple[int, int] | torch.Size, align_corners: bool = False) -> Tensor:
    """A map at the labels' resolution, bilinearly, in float32 at least.

    Args:
        prediction: Shape (B, K, h, w).
        size: Height and width of the labels.
        align_corners: Whether the centres of the corner pixels stay where they are, as in LibMTL, or the corners
            themselves do.
    """
    prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
    if prediction.shape[-2:] == tuple(size):
        return prediction
    return functional.interpolate(prediction, size=tuple(size), mode="bilinear", align_corners=align_corners)


def cross_entropy(prediction: Tensor, label: Tensor, ignore: int = -1) -> Tensor:
    """Cross-entropy of a class per pixel, over the pixels that have one: segmentation, human parts.

    Args:
        prediction: Logits, shape (B, K, h, w).
        label: Classes, integers, shape (B, H, W).
        ignore: The label of a pixel without a class.

    Raises:
        IsonomyError: The shapes do not go together, or the labels are no integers.
    """
    logits = _logits(prediction, label)
    total = functional.cross_entropy(logits, label.long(), ignore_index=ignore, reduction="sum")
    return total / _count(label != ignore)


def l1(prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean absolute error over valid pixels: depth, disparity, offsets (where it is the mean over the channels, too).

    Args:
        prediction: Shape (B, C, h, w).
        target: Shape (B, C, H, W); may hold anything where it is not valid.
        valid: Booleans, shape (B, H, W); None for the pixels where the target is not 0.

    Raises:
        IsonomyError: The shapes do not go together.
    """
    valid = _valid(prediction, target, valid)
    found = resized(prediction, target.shape[-2:])
    return _absolute(found, target, valid) / (_count(valid) * target.shape[1])


def cosine_normals(prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """1 − ⟨p, g⟩ over valid pixels, the prediction p scaled to length 1 after it is resized: surface normals.

    A prediction of length 0 has no direction; it counts as orthogonal and has no gradient.

    Args:
        prediction: Shape (B, 3, h, w), of any length.
        target: Normals of length 1, shape (B, 3, H, W); may hold anything where they are not valid.
        valid: Booleans, shape (B, H, W); None for the pixels where the target is not 0.

    Raises:
        IsonomyError: The shapes do not go together.
    """
    valid = _valid(prediction, target, valid, channels=3)
    unit = _unit(resized(prediction, target.shape[-2:]))
    cosines = (unit * torch.where(valid[:, None], target, 0)).sum(1)
    return torch.where(valid, 1 - cosines, 0).sum() / _count(valid)


def l1_normals(prediction: Tensor, target: Tensor, valid: Tensor | None = None, per: str = "pixels") -> Tensor:
    """Absolute error of surface normals, the prediction scaled to length 1 after it is resized.

    Codes differ in what they divide the sum over channels and valid pixels by, which is a factor of three in the task's
    weight: ATRC's and InvPT's by the pixels, the dense survey's by the elements.

    Args:
        prediction: Shape (B, 3, h, w), of any length.
        target: Normals of length 1, shape (B, 3, H, W); may hold anything where they are not valid.
        valid: Booleans, shape (B, H, W); None for the pixels where the target is not 0.
        per: ``"pixels"`` or ``"elements"``.

    Raises:
        IsonomyError: The shapes do not go together, or ``per`` is neither.
    """
    if per not in ("pixels", "elements"):
        raise unknown("divisor per", per, ("pixels", "elements"))
    valid = _valid(prediction, target, valid, channels=3)
    total = _absolute(_unit(resized(prediction, target.shape[-2:])), target, valid)
    return total / (_count(valid) * (1 if per == "pixels" else 3))


def saliency(prediction: Tensor, label: Tensor, ignore: int = 255) -> Tensor:
    """Balanced cross-entropy: a class weighs as much as the other's share of the batch's valid pixels.

    A batch with one class alone therefore costs 0.

    Args:
        prediction: Two logits a pixel (not salient, salient), shape (B, 2, h, w), or one for salient, (B, 1, h, w).
        label: 1 for salient, 0 for not, or ``ignore``; integers, shape (B, H, W).
        ignore: The label of a pixel that is not judged.

    Raises:
        IsonomyError: The shapes do not go together, or the labels are no integers.
    """
    logits = _logits(prediction, label, channels=(1, 2))
    valid, positive = label != ignore, label == 1
    count = _count(valid)
    share = positive.sum().to(logits) / count
    if logits.shape[1] == 2:
        weight = torch.stack([share, 1 - share])
        return functional.cross_entropy(logits, label.long(), weight, ignore_index=ignore, reduction="sum") / count
    return _binary(logits, positive, valid, 1 - share, share)


def edges(prediction: Tensor, label: Tensor, ignore: int = 255) -> Tensor:
    """Weighted binary cross-entropy: 0.95 for a pixel on an edge, 0.05 for one off it, mean over valid pixels.

    Args:
        prediction: Logits, shape (B, 1, h, w).
        label: 1 on an edge, 0 off it, or ``ignore``; integers, shape (B, H, W).
        ignore: The label of a pixel that is not judged.

    Raises:
        IsonomyError: The shapes do not go together, or the labels are no integers.
    """
    logits = _logits(prediction, label, channels=(1,))
    return _binary(logits, label == 1, label != ignore, EDGE, NO_EDGE)


def _count(valid: Tensor) -> Tensor:
    """How many pixels are valid, but 1 if none is, so that a loss without any is 0 / 1."""
    return valid.sum().clamp_min(1)


def _absolute(found: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    # The mask comes before the absolute value, whose gradient at a target that is not a number would be none either.
    return torch.where(valid[:, None], found - target, 0).abs().sum()


def _unit(vectors: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    # Infinity, where the length is 0: its gradient is 0, and that of a vector divided by it.
    return vectors / torch.where(lengths > 0, lengths, torch.inf)


def _binary(logits: Tensor, positive: Tensor, valid: Tensor, on: Tensor | float, off: Tensor | float) -> Tensor:
    """Binary cross-entropy in which positive pixels weigh ``on`` and the others ``off``, mean over valid pixels."""
    truth = positive.to(logits.dtype)
    each = functional.binary_cross_entropy_with_logits(logits[:, 0], truth, reduction="none")
    return torch.where(valid, (on * truth + off * (1 - truth)) * each, 0).sum() / _count(valid)


def _logits(prediction: Tensor, label: Tensor, channels: tuple[int, ...] = ()) -> Tensor:
    """The logits at the labels' resolution, if they go together; with one of these numbers of channels, if given."""
    if label.is_floating_point() or label.is_complex():
        raise IsonomyError(f"label has dtype {label.dtype}: pass integers, a class for every pixel.")
    if label.dim() != 3:
        raise IsonomyError(f"label has shape {tuple(label.shape)}: it has to be (B, H, W).")
    _require_map(prediction, len(label), channels)
    return resized(prediction, label.shape[-2:])


def _valid(prediction: Tensor, target: Tensor, valid: Tensor | None, channels: int | None = None) -> Tensor:
    """Which pixels count, shape (B, H, W), if everything goes together."""
    if target.dim() != 4:
        raise IsonomyError(f"target has shape {tuple(target.shape)}: it has to be (B, C, H, W).")
    wanted = target.shape[1] if channels is None else channels
    if target.shape[1] != wanted:
        raise IsonomyError(f"target has {target.shape[1]} channels: it has to have {wanted}.")
    _require_map(prediction, len(target), (wanted,))
    if valid is None:
        return (target != 0).any(1)
    if valid.dtype != torch.bool:
        raise IsonomyError(f"valid has dtype {valid.dtype}: pass booleans.")
    pixels = (len(target), *target.shape[-2:])
    if valid.shape != pixels:
        raise IsonomyError(f"valid has shape {tuple(valid.shape)}: it has to be {pixels}, one entry a pixel of target.")
    return valid


def _require_map(prediction: Tensor, count: int, channels: tuple[int, ...]) -> None:
    if prediction.dim() != 4 or len(prediction) != count or (channels and prediction.shape[1] not in channels):
        wanted = " or ".join(map(str, channels)) or "K"
        raise IsonomyError(
            f"prediction has shape {tuple(prediction.shape)}: "
            f"it has to be ({count}, {wanted}, h, w), as there are {count} labels."
        )
