"""The data set ``rooms``: its tasks in four profiles, each of which mirrors a data set of the papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isonomy.bench import losses
from isonomy.bench.data import Metric, colours
from isonomy.bench.data.dense import Batch, Dense, DenseTask
from isonomy.bench.data.rooms.cache import ROOMS, Split, cached
from isonomy.bench.data.rooms.sample import check_size
from isonomy.bench.data.rooms.scene import VERSION
from isonomy.errors import IsonomyError, unknown

IGNORED = -1
CLASSES, PARTS, GROUPS = 13, 7, 7
# Of the 13 classes (bed, books, ceiling, chair, floor, furniture, objects, picture, sofa, table, tv, wall, window) the
# coarse ones of ``city2``: floor and ceiling, wall and window, bed and sofa, chair and table, furniture, picture and
# tv, books and objects.
GROUP = (2, 6, 0, 3, 0, 4, 6, 5, 2, 3, 5, 1, 1)
# Inverse depth is stored as tiny numbers, as Cityscapes' is: this over the depth in metres.
NEAR = 0.05
FARTHEST = 6.0
# An image's diagonal is so short that a tolerance relative to it, as the benchmarks have, would be less than a pixel.
TOLERANCE = 1.5
# Always predicting one number costs about as much; scores are relative to it.
TRIVIAL_DEPTH, TRIVIAL_INVERSE, TRIVIAL_ANGLE = 1.0, 0.008, 45.0


def _share(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda values: values[name] / 100


def _below(name: str, trivial: float) -> Callable[[Mapping[str, float]], float]:
    return lambda values: min(max(1 - values[name] / trivial, 0.0), 1.0)


def _judge(metric: str, **options: Any) -> Callable[[bool], Any]:
    def make(thorough: bool) -> Any:
        from isonomy.bench import metrics  # noqa: PLC0415 - torchmetrics takes a second

        return getattr(metrics, metric)(**options)

    return make


def _judge_edges(thorough: bool) -> Any:
    from isonomy.bench import metrics  # noqa: PLC0415

    # Contours are matched image by image and threshold by threshold; validation has to be quick.
    return metrics.Edges(tolerance=TOLERANCE, unit="pixels", nms=False, thresholds=99 if thorough else 9)


def _classes(name: str, count: int, metric_names: tuple[str, ...]) -> DenseTask:
    return DenseTask(
        name,
        tuple(Metric(metric, up=True, unit="%") for metric in metric_names),
        _share("mIoU"),
        outputs=count,
        loss=partial(losses.cross_entropy, ignore=IGNORED),
        judge=_judge("Segmentation", classes=count),
        picture=colours.scores,
        paint=colours.classes,
    )


def _distance(metric_names: tuple[str, ...], trivial: float, farthest: float) -> DenseTask:
    show = partial(colours.distance, farthest=farthest)
    return DenseTask(
        "depth",
        tuple(Metric(metric, up=False) for metric in metric_names),
        _below(metric_names[0], trivial),
        outputs=1,
        loss=losses.l1,
        judge=_judge("Depth"),
        # Black is for what has no depth, which a prediction always has.
        picture=lambda depth: show(depth.clamp_min(1e-6)),
        paint=show,
    )


def _leftwards(normals: Tensor) -> Tensor:
    """Surface normals (B, 3, H, W) whose x points the other way."""
    return normals * normals.new_tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1)


def _normal(metrics: tuple[Metric, ...]) -> DenseTask:
    return DenseTask(
        "normal",
        metrics,
        _below(metrics[0].name, TRIVIAL_ANGLE),
        outputs=3,
        loss=losses.cosine_normals,
        judge=_judge("Normals"),
        picture=colours.normals,
        paint=colours.normals,
        mirror=_leftwards,
    )


EDGE = DenseTask(
    "edge",
    (Metric("odsF", up=True, unit="%"),),
    _share("odsF"),
    outputs=1,
    loss=losses.edges,
    judge=_judge_edges,
    picture=colours.logit,
    paint=colours.mask,
)
SALIENCY = DenseTask(
    "sal",
    (Metric("maxF", up=True, unit="%"),),
    _share("maxF"),
    outputs=2,
    loss=losses.saliency,
    judge=_judge("Saliency"),
    picture=colours.logit,
    paint=colours.mask,
)
ANGLES = (
    Metric("mean", up=False, unit="°"),
    Metric("median", up=False, unit="°"),
    *(Metric(within, up=True, unit="%") for within in ("11.25", "22.5", "30")),
)
SEGMENTATION = _classes("seg", CLASSES, ("mIoU",))
NORMAL = _normal((Metric("mErr", up=False, unit="°"),))

PROFILES: dict[str, tuple[DenseTask, ...]] = {
    "nyud4": (SEGMENTATION, _distance(("RMSE",), TRIVIAL_DEPTH, FARTHEST), NORMAL, EDGE),
    "nyu3": (
        _classes("seg", CLASSES, ("mIoU", "PAcc")),
        _distance(("AErr", "RErr"), TRIVIAL_DEPTH, FARTHEST),
        _normal(ANGLES),
    ),
    "context5": (SEGMENTATION, _classes("parts", PARTS, ("mIoU",)), NORMAL, SALIENCY, EDGE),
    "city2": (
        _classes("seg", GROUPS, ("mIoU", "PAcc")),
        _distance(("AErr", "RErr"), TRIVIAL_INVERSE, NEAR),
    ),
}


@dataclass
class Rooms(Dense):
    """Ray-cast indoor scenes. See ``Problem`` for the members.

    Attributes:
        profile: Which tasks: ``"nyud4"`` (segmentation, depth, normals, edges), ``"nyu3"`` (without edges),
            ``"context5"`` (segmentation, human parts, normals, saliency, edges) or ``"city2"`` (coarse segmentation,
            inverse depth).
        size: Height and width, from 64 x 64 to 448 x 576.
        train: Training images, and likewise ``val`` and ``test``.
        scans: Images of every room, each from a camera of its own; 1 for a room an image.
        noise: Whether training labels are spoilt as in the Revisit paper's Table V.
        batch_size: Images a step.
        flip: Whether half of the training images are mirrored.
    """

    options: ClassVar[tuple[str, ...]] = (
        "profile", "size", "train", "val", "test", "scans", "noise", "batch_size", "learning_rate", "flip",
    )  # fmt: skip

    name: str = "rooms"
    summary: str = "ray-cast indoor scenes: segmentation, depth, surface normals, edges, saliency, parts (generated)"
    version: int = VERSION
    profile: str = "nyud4"
    size: tuple[int, int] = (64, 64)
    train: int = 320
    val: int = 80
    test: int = 160
    scans: int = 1
    noise: bool = False
    flip: bool = True
    architectures: tuple[str, ...] = (
        "hps", "cross_stitch", "mtan", "mmoe", "cgc", "ple", "dselect_k", "ltb", "pad_net", "mti_net", "invpt",
    )  # fmt: skip
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    epochs: int = 20
    learning_rate: float = 3e-3
    schedule: str = "linear"
    batch_size: int = 16
    tasks: tuple[DenseTask, ...] = field(init=False)
    backbones: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        from isonomy.bench.backbones import CATALOGUE  # noqa: PLC0415

        if self.profile not in PROFILES:
            raise unknown("profile of rooms", self.profile, PROFILES)
        for name in ("train", "val", "test", "scans", "batch_size"):
            most = ROOMS * self.scans if name in ("train", "val", "test") else ROOMS
            if not 1 <= getattr(self, name) <= most:
                raise IsonomyError(f"Option {name} of rooms is {getattr(self, name)}: choose from 1 to {most}.")
        if not 0 < self.learning_rate < inf:
            raise IsonomyError(f"Option learning_rate of rooms is {self.learning_rate}: it must be positive.")
        check_size(self.size)
        self.tasks = PROFILES[self.profile]
        self.backbones = ("unet", *(name for name, entry in CATALOGUE.items() if entry.dense and name != "unet"))

    def count(self, split: str) -> int:  # noqa: D102
        return int(getattr(self, split))

    def read(self, split: str, chosen: NDArray[np.int64]) -> Batch:  # noqa: D102
        noisy = self.noise and split == "train"
        arrays = _split(split, self.count(split), self.size, self.scans, noisy)
        batch = {"image": _planes(arrays.image[chosen]).float() / 255}
        for task in self.tasks:
            batch[task.name] = _labels(arrays, task.name, chosen, self.profile)
        return batch


@lru_cache
def _split(split: str, count: int, size: tuple[int, int], scans: int, noise: bool) -> Split:
    return cached(split, count, size, scans=scans, noise=noise)


def _planes(array: NDArray[Any]) -> Tensor:
    """From (B, H, W, C) to (B, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2)


def _labels(arrays: Split, task: str, chosen: NDArray[np.int64], profile: str) -> Tensor:
    """What a task is to predict."""
    if task == "normal":
        return _planes(arrays.normal[chosen]).float()
    if task == "depth":
        depth = _planes(arrays.depth[chosen]).float()
        return torch.where(depth > 0, NEAR / depth, depth) if profile == "city2" else depth
    name = {"seg": "label", "parts": "part"}.get(task, task)
    labels = torch.from_numpy(np.ascontiguousarray(getattr(arrays, name)[chosen])).long()
    if task == "seg" and profile == "city2":
        return torch.where(labels == IGNORED, labels, torch.tensor(GROUP)[labels.clamp_min(0)])
    if task == "parts":
        # Where nobody is, there is nothing to be learnt about people.
        labels[(labels == 0).flatten(1).all(1)] = IGNORED
    return labels
