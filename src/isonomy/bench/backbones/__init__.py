"""Networks from images or molecules to what heads read.

| backbone | input | maps (channels, at strides) | H and W |
|---|---|---|---|
| ``resnet18`` ``resnet50`` | images, RGB in [0, 1] | 4 (64 to 512, 256 to 2048; 4 to 8, 16 or 32) | multiples of 8 |
| ``resnet18_pooled`` | the same, for classification | one vector (512) | multiples of 8 |
| ``resnet50_pyramid`` | the same, for ``psp_tail`` | 4, the last one with PSPNet's pyramid (4096) | multiples of 8 |
| ``resnet_mini`` | images, as they are; tests and quick looks | 4 (8 to 64; 4 to 8) | multiples of 8 |
| ``unet`` | small images, as they are | 1 (16; 1) | multiples of 4 |
| ``segnet`` | images, as they are | 1 (64; 1) | multiples of 32 |
| ``hrnet18`` | images, RGB in [0, 1] | 4 (18, 36, 72, 144; 4, 8, 16, 32) | multiples of 32 |
| ``vit_*`` | images, RGB in [0, 1], of one fixed size | 4 (192 to 1024; 16) | multiples of 16 |
| ``vit_base_dinov2`` | the same | 4 (768; 14) | multiples of 14 |
| ``mpnn`` | ``Molecules`` | one vector (64) | |
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from isonomy.bench.backbones.base import Backbone
from isonomy.bench.backbones.hrnet import HRNet, load_hrnet
from isonomy.bench.backbones.mpnn import MPNN, Molecules
from isonomy.bench.backbones.resnet import resnet18, resnet50, resnet_mini
from isonomy.bench.backbones.segnet import SegNet
from isonomy.bench.backbones.tops import Pooled, PyramidPooled, resnet18_pooled, resnet50_pyramid
from isonomy.bench.backbones.unet import UNet
from isonomy.bench.backbones.vit import ViT, load_vit
from isonomy.bench.backbones.weights import load
from isonomy.errors import IsonomyError, unknown

__all__ = ["CATALOGUE", "Backbone", "Entry", "Molecules", "Pooled", "PyramidPooled", "make"]


class Entry(NamedTuple):
    """A backbone.

    Attributes:
        summary: What it is, in a line.
        make: Makes it, of its options; where ``sized``, of ``size`` as well.
        head: Name of its default head.
        staged: Whether it has ``stem`` and ``stages``.
        multiple: What height and width of the images have to be multiples of.
        load: Loads a file of weights into it.
        sized: Whether it is built for one size of images.
    """

    summary: str
    make: Callable[..., Backbone]
    head: str
    staged: bool
    multiple: int
    load: Callable[[Any, Path], int] = load
    sized: bool = False

    @property
    def dense(self) -> bool:
        """Whether it gives maps, not one vector a sample."""
        return self.head != "linear"


def _vit(name: str, summary: str, multiple: int = 16) -> Entry:
    return Entry(summary, partial(ViT, name), "vit", staged=False, multiple=multiple, load=load_vit, sized=True)


_classified = partial(load, drop=("fc.",))


def _below(network: Pooled | PyramidPooled, path: Path) -> int:
    """Loads a file into the network that something is on top of."""
    return _classified(network.backbone, path)


CATALOGUE: dict[str, Entry] = {
    "resnet18": Entry("ResNet-18", resnet18, "aspp", staged=True, multiple=8, load=_classified),
    "resnet50": Entry("ResNet-50", resnet50, "aspp", staged=True, multiple=8, load=_classified),
    "resnet18_pooled": Entry(
        "ResNet-18, averaged, and a hidden layer: one vector", resnet18_pooled, "linear", False, 8, load=_below
    ),
    "resnet50_pyramid": Entry(
        "ResNet-50 and PSPNet's pyramid, all shared", resnet50_pyramid, "psp_tail", False, 8, load=_below
    ),
    "resnet_mini": Entry("a ResNet of four blocks, for tests and quick looks", resnet_mini, "conv", True, 8),
    "unet": Entry("a small U-Net, for small images", UNet, "conv", staged=False, multiple=4),
    "segnet": Entry("SegNet", SegNet, "segnet", staged=False, multiple=32),
    "hrnet18": Entry("HRNet-18 (small v2)", HRNet, "hrnet", staged=False, multiple=32, load=load_hrnet),
    "vit_tiny": _vit("vit_tiny", "ViT-T/16"),
    "vit_small": _vit("vit_small", "ViT-S/16"),
    "vit_base": _vit("vit_base", "ViT-B/16"),
    "vit_large": _vit("vit_large", "ViT-L/16"),
    "vit_base_in1k": _vit("vit_base_in1k", "ViT-B/16, trained on ImageNet-1k"),
    "vit_base_in21k": _vit("vit_base_in21k", "ViT-B/16, trained on ImageNet-21k"),
    "vit_base_in22k": _vit("vit_base_in22k", "ViT-B/16, trained on ImageNet-21k, then on 1k"),
    "vit_base_clip": _vit("vit_base_clip", "ViT-B/16, CLIP's on LAION-2B, then ImageNet-12k and 1k"),
    "vit_base_sam": _vit("vit_base_sam", "ViT-B/16, Segment Anything's encoder"),
    "vit_base_dino": _vit("vit_base_dino", "ViT-B/16, DINO's"),
    "vit_base_dinov2": _vit("vit_base_dinov2", "ViT-B/14, DINOv2's with four registers", multiple=14),
    "mpnn": Entry("a message-passing network for molecules", MPNN, "linear", staged=False, multiple=1),
}


def make(
    name: str, *, size: tuple[int, int] | None = None, weights: str | Path | None = None, **options: Any
) -> Backbone:
    """A backbone by its name.

    Args:
        name: One of ``CATALOGUE``.
        size: Height and width of the images; not for ``mpnn``.
        weights: A local file to start from; see ``weights.load``. None leaves the initial weights as they were drawn.
        options: The backbone's own, such as ``output_stride`` and ``normalize``.

    Raises:
        IsonomyError: For a name, size or option that there is not, a file that is not the network's, a missing extra.
    """
    if name not in CATALOGUE:
        raise unknown("backbone", name, CATALOGUE)
    entry = CATALOGUE[name]
    allowed = set(inspect.signature(entry.make).parameters) - {"size"}
    for option in options:
        if option not in allowed:
            raise unknown(f"option of the backbone {name!r}", option, allowed)
    if name != "mpnn":
        if size is None:
            raise IsonomyError(f"size is missing: the backbone {name!r} reads images, so pass size=(height, width).")
        if min(size) < 1 or any(side % entry.multiple for side in size):
            raise IsonomyError(
                f"size={size} does not fit the backbone {name!r}: height and width have to be multiples of "
                f"{entry.multiple}. Crop, pad or resize the images."
            )
        if entry.sized:
            options["size"] = size
    network: Backbone = entry.make(**options)
    if weights is not None:
        entry.load(network, Path(weights))
    return network
