"""The data set ``cityscapes2``: Cityscapes with 7 classes and inverse depth, as MTAN's authors packed it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from isonomy.bench.data import maps, transforms
from isonomy.bench.data.dense import ARCHITECTURES, DenseTask
from isonomy.bench.data.files import HONEST
from isonomy.bench.data.packed import BACKBONES, FOLDERS, PLAIN, RECIPE, Packed
from isonomy.bench.data.roots import Layout, damaged
from isonomy.bench.recipe import Recipe

CLASSES = 7
CAGRAD = "cagrad"
# Disparities of 16 bits, at most 32257, over 65535: pictures are bright at a quarter. Always predicting one number
# costs about as much as the first.
TRIVIAL_INVERSE, NEAREST = 0.05, 0.25


@dataclass
class Cityscapes2(Packed):
    """Cityscapes with two tasks. See ``Problem`` for the members, ``Files`` and ``Packed`` for the options.

    Attributes:
        compat: ``"cagrad"``: as in CAGrad's code, what is enlarged has its inverse depth divided by the scale, as if
            it were depth, which makes what looks nearer lie farther away.
    """

    options: ClassVar[tuple[str, ...]] = ("split", "batch_size", "augment", "workers", "compat")
    layout: ClassVar[Layout] = Layout(
        "cityscapes2",
        """\
cityscapes2/
  train/                  2975 of each; 0.npy, 1.npy, ...
    image/NUMBER.npy      (128, 256, 3), RGB in [0, 1]
    label/NUMBER.npy      (128, 256), 0 to 6, -1: none
    depth/NUMBER.npy      (128, 256, 1), inverse depth, 0: none
  val/                    the same, 500 of each: the test split""",
        "It is linked from the page of the project MTAN, as the pre-processed Cityscapes.",
    )
    images: ClassVar[dict[str, int]] = {"train": 2975, "test": 500}
    fields: ClassVar[tuple[str, ...]] = ("image", "label", "depth")
    classes: ClassVar[int] = CLASSES
    advice: ClassVar[str] = "; there are archives with 2 and with 19 classes, too, and the one with 7 is wanted"
    compats: ClassVar[tuple[str, ...]] = (PLAIN, CAGRAD)

    name: str = "cityscapes2"
    summary: str = "Cityscapes: 7 classes, inverse depth (your own files)"
    version: int = 1
    split: str = HONEST
    batch_size: int = 64
    augment: bool = False
    workers: int = 0
    compat: str = PLAIN
    architectures: tuple[str, ...] = ARCHITECTURES
    backbones: tuple[str, ...] = BACKBONES
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    recipe: Recipe = RECIPE
    tasks: tuple[DenseTask, ...] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tasks = (
            maps.classes(CLASSES, ("mIoU", "PAcc")),
            # Papers print RErr in percent here, and as a share of NYUv2's depth.
            maps.distance(("AErr", "RErr"), TRIVIAL_INVERSE, NEAREST, percent=True),
        )

    @property
    def kinds(self) -> transforms.Kinds:  # noqa: D102
        depth = transforms.DEPTH if self.compat == CAGRAD else transforms.INVERSE
        return {"seg": transforms.CLASSES, "depth": depth}

    def _depth(self, split: str, name: str, index: int) -> Tensor:
        depth = super()._depth(split, name, index)
        if depth.max() > 1:
            path = self.root / FOLDERS[split] / "depth" / f"{name}.npy"
            raise damaged(path, index, f"its largest value is {depth.max():g}, inverse depth stays below 1")
        return depth
