"""``digit_domains``: handwritten digits from several domains, each with images of its own: a task is a domain.

As with Office-31 and Office-Home, whose proportions are mirrored: one domain is large, one tiny, one between, and no
image has two labels. The digits are real handwriting that comes with scikit-learn, so nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.architectures import Design
from isonomy.bench.architectures.hps import HPS
from isonomy.bench.data import Task
from isonomy.bench.data.digits import CANVAS, DIGIT, FEATURES, encoder
from isonomy.bench.data.domains import Domains, Split, cut, domain_task
from isonomy.bench.recipe import Recipe
from isonomy.bench.seeds import key

VERSION = 1
CLASSES = 10
# How many digits a domain gets; the fourth one, if it is wanted, takes some of the first.
DOMAINS = {"clean": 1_000, "photo": 260, "sketch": 537}
INVERTED = 300
# A photo: a warped digit, before a background of random blocks, with noise.
TURN, ZOOM = 0.3, 0.85
DIGIT_SHARE, BACKGROUND_SHARE, NOISE = 0.75, 0.35, 0.06
BLOCKS = 4


@cache
def _sources() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All digits: images (1797, 8, 8) in [0, 1] and classes (1797,)."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second that only training has to spend

    images, classes = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32).reshape(-1, DIGIT, DIGIT), classes.astype(np.int64)


@cache
def dealt(inverted: bool) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Which digits each domain has in each split: of every class 60 % to train, 20 % to validate and the rest to test.

    Args:
        inverted: Whether there is a fourth domain.

    Returns:
        For each domain and split the indices of digits, sorted; every digit is in one place.
    """
    _, classes = _sources()
    shuffled = np.random.default_rng(key("digit_domains", VERSION)).permutation(len(classes))
    parts = dict(zip(DOMAINS, np.split(shuffled, np.cumsum(list(DOMAINS.values()))[:-1]), strict=True))
    if inverted:
        parts["clean"], parts["inverted"] = parts["clean"][:-INVERTED], parts["clean"][-INVERTED:]
    found: dict[str, dict[str, NDArray[np.int64]]] = {}
    for domain, digits in parts.items():
        splits: dict[str, list[NDArray[np.int64]]] = {"train": [], "val": [], "test": []}
        for label in range(CLASSES):
            own = np.sort(digits[classes[digits] == label])
            parted = cut(own, key("digit_domains", VERSION, domain, "split", label))
            for split, chosen in zip(splits, parted, strict=True):
                splits[split].append(chosen)
        found[domain] = {split: np.sort(np.concatenate(chosen)) for split, chosen in splits.items()}
    return found


def drawn(domain: str, digits: NDArray[np.int64]) -> Tensor:
    """Digits as a domain shows them, shape (N, 1, 12, 12), in [0, 1]; each depends on its own index alone.

    Args:
        domain: ``"clean"``: in the middle of the canvas; ``"photo"``: warped, before a background; ``"sketch"``: the
            outlines of a warped digit; ``"inverted"``: thick and dark on light.
        digits: Indices of source digits, shape (N,).
    """
    margin = (CANVAS - DIGIT) // 2
    clean = functional.pad(torch.from_numpy(_sources()[0][digits])[:, None], [margin] * 4)
    if domain == "clean":
        return clean
    if domain == "inverted":
        return 1 - functional.max_pool2d(functional.pad(clean, [0, 1, 0, 1]), 2, stride=1)
    generators = [np.random.default_rng(key("digit_domains", VERSION, domain, int(digit))) for digit in digits]
    warped = _warped(clean, np.stack([generator.random(2) for generator in generators]))
    if domain == "sketch":
        across = warped.diff(dim=3, prepend=warped[..., :1]).abs()
        down = warped.diff(dim=2, prepend=warped[..., :1, :]).abs()
        return (across + down).clamp(max=1)
    blocks = torch.from_numpy(np.stack([generator.random((1, BLOCKS, BLOCKS)) for generator in generators])).float()
    noise = np.stack([generator.standard_normal((1, CANVAS, CANVAS)) for generator in generators])
    background = functional.interpolate(blocks, scale_factor=CANVAS // BLOCKS)
    photo = DIGIT_SHARE * warped + BACKGROUND_SHARE * background + NOISE * torch.from_numpy(noise).float()
    return photo.clamp(0, 1)


def _warped(images: Tensor, uniforms: NDArray[np.float64]) -> Tensor:
    """Images turned by up to ``TURN`` and enlarged by ``ZOOM`` to 1 / ``ZOOM``, as two uniform numbers each say."""
    angle = TURN * (2 * uniforms[:, 0] - 1)
    zoom = ZOOM + (1 / ZOOM - ZOOM) * uniforms[:, 1]
    cosine, sine, zero = np.cos(angle) / zoom, np.sin(angle) / zoom, np.zeros_like(angle)
    rows = np.stack([cosine, -sine, zero, sine, cosine, zero], axis=1).reshape(-1, 2, 3)
    grid = functional.affine_grid(torch.from_numpy(rows).float(), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


@cache
def samples(domain: str, split: str, inverted: bool) -> Split:
    """A domain's split.

    Args:
        domain: Name.
        split: ``"train"``, ``"val"`` or ``"test"``.
        inverted: Whether there is a fourth domain.
    """
    digits = dealt(inverted)[domain][split]
    return Split(drawn(domain, digits), torch.from_numpy(_sources()[1][digits]))


@cache
def _on(domain: str, split: str, inverted: bool, device: torch.device) -> Split:
    return samples(domain, split, inverted).to(device)


@dataclass
class DigitDomains(Domains):
    """Read the digits of three domains, or of four. See ``Problem`` for the members.

    Args:
        inverted: Whether there is a fourth domain.
    """

    options: ClassVar[tuple[str, ...]] = ("inverted",)

    name: str = "digit_domains"
    summary: str = "handwritten digits of three or four domains, each with images of its own (embedded, seconds)"
    version: int = VERSION
    tasks: tuple[Task, ...] = field(init=False)
    architectures: tuple[str, ...] = ("hps",)
    backbones: tuple[str, ...] = ()
    size: None = None
    levels: tuple[str, ...] = ("parameters", "last_layer")
    recipe: Recipe = Recipe(epochs=60, learning_rate=1e-3)
    batch_size: int = 32
    inverted: bool = False

    def __post_init__(self) -> None:
        domains = [*DOMAINS, "inverted"] if self.inverted else DOMAINS
        self.tasks = tuple(map(domain_task, domains))

    def network(self, design: Design, tasks: Sequence[str], seed: int) -> nn.Module:  # noqa: D102
        return HPS(encoder, {task: lambda: nn.Linear(FEATURES, CLASSES) for task in tasks}, seed)

    def count(self, domain: str, split: str) -> int:  # noqa: D102
        return len(dealt(self.inverted)[domain][split])

    def loaded(self, domain: str, split: str, chunks: Sequence[Tensor], device: Any) -> Iterator[Split]:  # noqa: D102
        images, labels = _on(domain, split, self.inverted, torch.device(device))
        for chosen in chunks:
            own = chosen.to(device)
            yield Split(images[own], labels[own])
