"""Networks: what the tasks of a data set share, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module

import torch
from torch import nn

from isonomy.bench import backbones
from isonomy.bench.backbones.heads import HEADS
from isonomy.bench.backbones.heads import make as make_head
from isonomy.bench.options import defaults_of, name_of, read
from isonomy.errors import IsonomyError, unknown

FEATURES, PARAMETERS, LAST_LAYER = "features", "parameters", "last_layer"


@dataclass(frozen=True)
class Design:
    """Which network.

    Attributes:
        architecture: What is shared, and how; with options if wanted, such as ``"mtan:variant=libmtl"``.
        backbone: The encoder, with options if wanted, such as ``"resnet50:output_stride=16"``; None for a data set that
            brings its own.
        head: What makes predictions of the encoder's maps; None for the backbone's usual one, and where the
            architecture has its own.
        weights: A local file with the backbone's weights; None for random ones.
    """

    architecture: str
    backbone: str | None = None
    head: str | None = None
    weights: str | None = None

    @property
    def kind(self) -> Architecture:
        """The architecture's entry in the catalogue."""
        return ARCHITECTURES[name_of(self.architecture)]


@dataclass(frozen=True)
class Architecture:
    """An architecture of the catalogue.

    Attributes:
        summary: One line for ``isonomy list architectures``.
        network: ``"module:Class"`` below this package; empty for one that a data set makes by itself.
        levels: Where gradients can be measured. Feature level needs one set of features that every head reads: between
            the different tensors of different tasks an inner product would mean nothing.
        backbones: Those it is made for; ``None`` for all, ``"staged"`` for those with a stem and four stages.
        decoder: Whether it brings its own heads.
        factor: How many times the backbone's multiple the sides of an image have to be a multiple of.
    """

    summary: str
    network: str = ""
    levels: tuple[str, ...] = (PARAMETERS, LAST_LAYER)
    backbones: tuple[str, ...] | str | None = None
    decoder: bool = False
    factor: int = 1


_EXPERTS = ("unet", "resnet18", "resnet18_pooled", "resnet50", "resnet_mini")
_SHARED_FEATURE = (FEATURES, PARAMETERS, LAST_LAYER)
_HRNET = ("hrnet18",)
_VIT = tuple(f"vit_{size}" for size in ("tiny", "small", "base", "large")) + tuple(
    f"vit_base_{origin}" for origin in ("in1k", "in21k", "in22k", "clip", "sam", "dino", "dinov2")
)

ARCHITECTURES: dict[str, Architecture] = {
    "hps": Architecture("hard parameter sharing: one encoder, one head a task", "hps:HPS", _SHARED_FEATURE),
    "cross_stitch": Architecture(
        "an encoder a task, features mixed after every stage", "cross_stitch:CrossStitch", backbones="staged"
    ),
    "mtan": Architecture(
        "one encoder, from whose stages each task attends to its own features",
        "mtan:MTAN",
        backbones=("resnet18", "resnet50", "resnet_mini", "segnet"),
    ),
    "mmoe": Architecture("several encoders as experts, mixed by a gate a task", "mmoe:MMoE", backbones=_EXPERTS),
    "cgc": Architecture("shared experts and a task's own, mixed by a gate a task", "cgc:CGC", backbones=_EXPERTS),
    "ple": Architecture("shared and own experts, mixed after every stage", "ple:PLE", backbones="staged"),
    "dselect_k": Architecture(
        "k of several experts, picked by smooth binary codes", "dselect_k:DSelectK", backbones=_EXPERTS
    ),
    "ltb": Architecture("an encoder a task; learns where the tasks branch", "ltb:LTB", backbones="staged"),
    "pad_net": Architecture(
        "first predictions, whose features are distilled into the others' last ones",
        "pad_net:PADNet",
        _SHARED_FEATURE,
        backbones=_HRNET,
        decoder=True,
    ),
    "mti_net": Architecture(
        "as pad_net at four scales, from coarse to fine", "mti_net:MTINet", _SHARED_FEATURE, _HRNET, decoder=True
    ),
    "invpt": Architecture(
        "a transformer decoder in which all tasks attend to each other",
        "invpt:InvPT",
        _SHARED_FEATURE,
        _VIT,
        decoder=True,
        factor=4,
    ),
    "point": Architecture("no network: the shared parameters are a point of the plane", levels=(PARAMETERS,)),
}


def fits(architecture: str, backbone: str) -> bool:
    """Whether an architecture can be built on a backbone.

    Args:
        architecture: Name.
        backbone: Name.
    """
    wanted, name = ARCHITECTURES[name_of(architecture)].backbones, name_of(backbone)
    return wanted is None or (backbones.CATALOGUE[name].staged if wanted == "staged" else name in wanted)


def require(design: Design, size: tuple[int, int] | None) -> None:
    """Refuses a design that cannot be built.

    Args:
        design: With a backbone of the catalogue.
        size: Height and width of the images; None for data without images.

    Raises:
        IsonomyError: The backbone or head is unknown, or does not go with the architecture or the images.
    """
    assert design.backbone is not None
    architecture, backbone, head = name_of(design.architecture), name_of(design.backbone), design.head
    if backbone not in backbones.CATALOGUE:
        raise unknown("backbone", backbone, backbones.CATALOGUE)
    if not fits(architecture, backbone):
        possible = [name for name in backbones.CATALOGUE if fits(architecture, name)]
        raise IsonomyError(
            f"Architecture {architecture!r} cannot be built on backbone {backbone!r}: use {' or '.join(possible)}."
        )
    if head is not None:
        if design.kind.decoder:
            raise IsonomyError(f"Architecture {architecture!r} has heads of its own: leave --head out.")
        if head not in HEADS:
            raise unknown("head", head, HEADS)
    multiple = design.kind.factor * backbones.CATALOGUE[backbone].multiple
    if size is not None and any(side % multiple for side in size):
        raise IsonomyError(
            f"Architecture {architecture!r} on {backbone!r} needs images whose sides are multiples of {multiple}, "
            f"not {size[0]} x {size[1]}: choose another size or backbone."
        )
    if size is not None:
        # What options are worth is known to the network alone. Without memory for its numbers it is made at once.
        with torch.device("meta"):
            build(replace(design, weights=None), {"one": 1, "other": 1}, size, 0)


def _network(design: Design) -> Callable[..., nn.Module]:
    module, _, name = design.kind.network.partition(":")
    made: Callable[..., nn.Module] = getattr(import_module(f"isonomy.bench.architectures.{module}"), name)
    return made


def build(design: Design, outputs: Mapping[str, int], size: tuple[int, int], seed: int) -> nn.Module:
    """A fresh network.

    Args:
        design: Which one; ``require`` has accepted it.
        outputs: For each task, how many channels its prediction has.
        size: Height and width of the images.
        seed: Of the initial weights.

    Returns:
        A module that gives an ``Output``.
    """
    assert design.backbone is not None
    name, network = name_of(design.backbone), _network(design)
    entry = backbones.CATALOGUE[name]
    options = read(design.architecture, defaults_of(network), name_of(design.architecture))
    if options.get("gate_input") == "image":
        options.setdefault("image", (3, *size))
    own = read(design.backbone, defaults_of(entry.make), name)
    encoder = partial(backbones.make, name, size=size, weights=design.weights, **own)
    if design.kind.decoder:
        return network(encoder, outputs, seed, **options)
    with torch.device("meta"):  # so that looking costs no memory and no random numbers
        channels = backbones.make(name, size=size, **own).channels
    head = design.head or entry.head
    heads = {task: partial(make_head, head, channels, count) for task, count in outputs.items()}
    return network(encoder, heads, seed, **options)
