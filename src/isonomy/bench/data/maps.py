"""The kinds of maps that data sets of images are labelled with, as tasks; a data set says how many classes, and so on.

| task | labels | where there are none |
|---|---|---|
| ``classes`` | integers (H, W) | −1 |
| ``distance`` | (1, H, W) | 0 |
| ``normals`` | unit vectors (3, H, W), x right, y up, z towards the viewer | 0 |
| ``edges``, ``saliency`` | 0 or 1, integers (H, W) | 255, in the padding around an image |
| ``offsets``, ``middles``, ``disparity`` | (C, H, W), in pixels | NaN |

All that tasks are made of can be sent to the processes that read files ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isonomy.bench import losses
from isonomy.bench.data import Metric, colours
from isonomy.bench.data.dense import DenseTask

IGNORED, PADDING = -1, 255
# Thresholds of edges in validation, where contours have to be matched quickly, and on the test split.
QUICK = 9


def share(name: str) -> Callable[[Mapping[str, float]], float]:
    """A score: a metric in percent as a share.

    Args:
        name: Of the metric.
    """
    return partial(_share, name)


def _share(name: str, values: Mapping[str, float]) -> float:
    return values[name] / 100


def below(name: str, trivial: float) -> Callable[[Mapping[str, float]], float]:
    """A score: how much of the trivial answer's error is gone.

    Args:
        name: Of the error.
        trivial: What always predicting one number costs, about.
    """
    return partial(_below, name, trivial)


def _below(name: str, trivial: float, values: Mapping[str, float]) -> float:
    return min(max(1 - values[name] / trivial, 0.0), 1.0)


def judge(metric: str, **options: Any) -> Callable[[bool], Any]:
    """Makes one of ``isonomy.bench.metrics``, however much time there is.

    Args:
        metric: Its name.
        options: Its own.
    """
    return partial(_judge, metric, options)


def _judge(metric: str, options: Mapping[str, Any], thorough: bool) -> Any:
    from isonomy.bench import metrics  # noqa: PLC0415 - torchmetrics takes a second

    return getattr(metrics, metric)(**options)


def classes(
    count: int,
    metrics: tuple[str, ...] = ("mIoU",),
    name: str = "seg",
    mirror: Callable[[Tensor], Tensor] | None = None,
) -> DenseTask:
    """A class a pixel: segmentation, human parts.

    Args:
        count: How many classes.
        metrics: Of ``mIoU`` and ``PAcc``.
        name: Of the task.
        mirror: See ``DenseTask``.
    """
    return DenseTask(
        name,
        tuple(Metric(metric, up=True, unit="%") for metric in metrics),
        share("mIoU"),
        outputs=count,
        loss=partial(losses.cross_entropy, ignore=IGNORED),
        judge=judge("Segmentation", classes=count),
        picture=colours.scores,
        paint=colours.classes,
        mirror=mirror,
    )


def distance(
    metrics: tuple[str, ...], trivial: float, farthest: float, unit: str = "", percent: bool = False
) -> DenseTask:
    """Depth, or its inverse.

    Args:
        metrics: Of ``AErr``, ``RErr`` and ``RMSE``.
        trivial: What always predicting one number costs in the first of them.
        farthest: Where the colours of pictures end.
        unit: Of the labels.
        percent: Whether ``RErr`` is in percent, not a share.
    """
    units = {"RErr": "%" if percent else ""}
    show = partial(colours.distance, farthest=farthest)
    return DenseTask(
        "depth",
        tuple(Metric(metric, up=False, unit=units.get(metric, unit)) for metric in metrics),
        below(metrics[0], trivial),
        outputs=1,
        loss=losses.l1,
        judge=judge("Depth", percent=percent),
        picture=partial(_everywhere, show),
        paint=show,
    )


def _everywhere(show: Callable[[Tensor], NDArray[np.uint8]], depth: Tensor) -> NDArray[np.uint8]:
    # Black is for what has no depth, which a prediction always has.
    return show(depth.clamp_min(1e-6))


def leftwards(vectors: Tensor) -> Tensor:
    """Vectors (B, C, H, W) or (C, H, W) whose x, the first component, points the other way."""
    signs = vectors.new_ones(vectors.shape[-3])
    signs[0] = -1
    return vectors * signs.view(-1, 1, 1)


ANGLE = (Metric("mErr", up=False, unit="°"),)
ANGLES = (
    Metric("mean", up=False, unit="°"),
    Metric("median", up=False, unit="°"),
    *(Metric(within, up=True, unit="%") for within in ("11.25", "22.5", "30")),
)
COSINE = (Metric("cosine", up=True),)
TRIVIAL_ANGLE = 45.0


def normals(
    metrics: tuple[Metric, ...] = ANGLE, loss: Callable[[Tensor, Tensor], Tensor] = losses.cosine_normals
) -> DenseTask:
    """Surface normals.

    Args:
        metrics: ``ANGLE``, ``ANGLES`` or ``COSINE``.
        loss: Of a prediction and the labels.
    """
    score = _cosine if metrics == COSINE else below(metrics[0].name, TRIVIAL_ANGLE)
    return DenseTask(
        "normal",
        metrics,
        score,
        outputs=3,
        loss=loss,
        judge=judge("Normals"),
        picture=colours.normals,
        paint=colours.normals,
        mirror=leftwards,
    )


def _cosine(values: Mapping[str, float]) -> float:
    return max(values["cosine"], 0.0)


def edges(thresholds: int = 99, **options: Any) -> DenseTask:
    """Edges.

    Args:
        thresholds: On the test split; validation takes a few.
        options: Of the metric ``Edges``: its tolerance and what belongs to it.
    """
    return DenseTask(
        "edge",
        (Metric("odsF", up=True, unit="%"),),
        share("odsF"),
        outputs=1,
        loss=losses.edges,
        judge=partial(_edges, thresholds, options),
        picture=colours.logit,
        paint=colours.mask,
    )


def _edges(thresholds: int, options: Mapping[str, Any], thorough: bool) -> Any:
    return judge("Edges", thresholds=thresholds if thorough else QUICK, **options)(thorough)


def saliency() -> DenseTask:
    """What stands out."""
    return DenseTask(
        "sal",
        (Metric("maxF", up=True, unit="%"),),
        share("maxF"),
        outputs=2,
        loss=losses.saliency,
        judge=judge("Saliency"),
        picture=colours.logit,
        paint=colours.mask,
    )


def offsets(
    name: str,
    outputs: int,
    trivial: float,
    paint: Callable[[Tensor], Any],
    mirror: Callable[[Tensor], Tensor] | None = None,
) -> DenseTask:
    """Numbers in pixels: disparity, or where an object's middle is.

    Args:
        name: Of the task.
        outputs: Numbers a pixel.
        trivial: What always predicting one number costs.
        paint: What labels (outputs, H, W), or a prediction, look like.
        mirror: See ``DenseTask``.
    """
    return DenseTask(
        name,
        (Metric("L1", up=False, unit="px"),),
        below("L1", trivial),
        outputs=outputs,
        loss=_known,
        judge=judge("L1"),
        picture=paint,
        paint=paint,
        mirror=mirror,
    )


def _known(prediction: Tensor, target: Tensor) -> Tensor:
    return losses.l1(prediction, target, ~target.isnan().any(1))


def middles(trivial: float, farthest: float) -> DenseTask:
    """Where the middle of each pixel's object is, as ``isonomy.bench.data.offsets`` has it: dx and dy.

    Args:
        trivial: What always predicting one number costs.
        farthest: Where the colours of pictures end.
    """
    return offsets("ins", 2, trivial, partial(colours.steps, farthest=farthest), leftwards)


def disparity(trivial: float, farthest: float) -> DenseTask:
    """How far apart two cameras see the same.

    Args:
        trivial: What always predicting one number costs.
        farthest: Where the colours of pictures end.
    """
    return offsets("disp", 1, trivial, partial(_shift, farthest))


def _shift(farthest: float, shift: Tensor) -> NDArray[np.uint8]:
    return colours.distance(shift.clamp_min(1e-6).nan_to_num(0), farthest)


def without_people(parts: Tensor) -> Tensor:
    """Human parts (H, W) or (B, H, W): where nobody is, there is nothing to be learnt about people.

    Args:
        parts: 0 for the background, ``IGNORED`` for no label.
    """
    nobody = (parts <= 0).flatten(-2).all(-1)
    return torch.where(nobody[..., None, None], IGNORED, parts)
