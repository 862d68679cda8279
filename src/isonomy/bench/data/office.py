"""``office31`` and ``officehome``: photographs of things from several domains; a task is a domain.

Saenko et al., "Adapting visual category models to new domains", ECCV 2010; Venkateswara et al., "Deep hashing network
for unsupervised domain adaptation", CVPR 2017. Protocol: Lin et al., DB-MTL, tables 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from isonomy.bench import architectures
from isonomy.bench.architectures import Design
from isonomy.bench.data import Task, decode, photos
from isonomy.bench.data.domains import Domains, Split, cut, domain_task
from isonomy.bench.data.files import notes
from isonomy.bench.data.loading import Sample, loaded
from isonomy.bench.data.roots import Layout, damaged
from isonomy.bench.recipe import BEST_VAL, Recipe
from isonomy.bench.seeds import key

SPLITS = ("train", "val", "test")
SUFFIX = ".jpg"

LISTS = """\
    {domain}_train.txt   optional, and so on for val and test and every domain: LibMTL's splits,
                       each line "{domain}/…/name.jpg CLASS", CLASS from 0 to {last}
"""


class Photo(NamedTuple):
    """An image file, relative to the data set's folder, and its class."""

    path: str
    label: int


class Office(Domains):
    """Which of the data set's things is it, in each domain? See ``Problem`` for the members.

    A subclass is a dataclass. The network is as wide as the papers', whichever classes the folder has.

    Attributes:
        layout: What the folder has to look like.
        domains: How many images each has in the papers, to train on, to validate and to test.
        classes: How many there are.
        inside: The folder between a domain's and those of its classes.
        size: Height and width that the images are brought to.
        batch_size: Images of each domain a step.
        workers: Processes that read ahead for each domain; results do not depend on how many.
    """

    options: ClassVar[tuple[str, ...]] = ("size", "batch_size", "workers")
    layout: ClassVar[Layout]
    domains: ClassVar[dict[str, tuple[int, int, int]]]
    classes: ClassVar[int]
    inside: ClassVar[str] = "."

    version: int = 1
    architectures: tuple[str, ...] = ("hps", "mmoe", "cgc", "dselect_k")
    backbones: tuple[str, ...] = ("resnet18_pooled",)
    levels: tuple[str, ...] = ("parameters", "last_layer")
    recipe: Recipe = Recipe(epochs=100, learning_rate=1e-4, weight_decay=1e-5, select=BEST_VAL)
    size: tuple[int, int]
    workers: int

    def __post_init__(self) -> None:
        photos.check_options(self.layout.name, self.size, self.batch_size, self.workers)
        self.tasks = tuple(domain_task(domain.lower()) for domain in self.domains)

    @cached_property
    def root(self) -> Path:
        """The data set's folder."""
        return self.layout.root()

    def folder(self, domain: str) -> str:
        """A domain's folder below the root: Office-Home's archive has a space in one that lists have an underscore in.

        Args:
            domain: As in ``domains``.
        """
        return next((name for name in (domain, domain.replace("_", " ")) if (self.root / name).is_dir()), domain)

    @cached_property
    def _photos(self) -> dict[str, dict[str, list[Photo]]]:
        """For each split and each task its images."""
        lists = {split: {domain: self.root / f"{domain}_{split}.txt" for domain in self.domains} for split in SPLITS}
        every = [path for own in lists.values() for path in own.values()]
        missing = [path for path in every if not path.is_file()]
        self.layout.require(*(self.root / self.folder(domain) / self.inside for domain in self.domains))
        if not missing:
            found = {
                split: {each: self._listed(each, path) for each, path in own.items()} for split, own in lists.items()
            }
            self._require_apart(found)
        elif missing != every:
            raise self.layout.error(f"{missing[0]} is missing, while other lists are there: put all of them, or none")
        else:
            found = self._dealt()
        for split, own in found.items():
            for domain, images in own.items():
                if not images:
                    raise self.layout.error(f"domain {domain!r} has no image for split {split!r} in {self.root}")
        return {split: {domain.lower(): images for domain, images in own.items()} for split, own in found.items()}

    def _listed(self, domain: str, path: Path) -> list[Photo]:
        """What a list names."""
        found = []
        for index, line in enumerate(filter(str.strip, path.read_text(errors="replace").splitlines())):
            name, _, label = line.strip().rpartition(" ")
            first, _, rest = name.strip().partition("/")
            if not label.isdecimal() or int(label) >= self.classes or first not in (domain, self.folder(domain)):
                raise damaged(path, index, f"{line!r} is no path in {domain} and class from 0 to {self.classes - 1}")
            photo = Photo(f"{self.folder(domain)}/{rest}", int(label))
            if not (self.root / photo.path).is_file():
                raise self.layout.error(f"{self.root / photo.path} is missing, which {path} names")
            found.append(photo)
        return found

    def _require_apart(self, found: dict[str, dict[str, list[Photo]]]) -> None:
        """Refuses lists that name an image twice: it would be trained on and tested."""
        seen: set[str] = set()
        for photo in (photo for own in found.values() for images in own.values() for photo in images):
            if photo.path in seen:
                raise self.layout.error(f"the lists in {self.root} name {photo.path} twice")
            seen.add(photo.path)

    def _dealt(self) -> dict[str, dict[str, list[Photo]]]:
        """Of every class of every domain 60 % to train, 20 % to validate and the rest to test, the same ones always."""
        folders = {domain: self.root / self.folder(domain) / self.inside for domain in self.domains}
        labels = {
            name: label
            for label, name in enumerate(sorted({name for own in folders.values() for name in self._classes(own)}))
        }
        if len(labels) > self.classes:
            raise self.layout.error(f"{self.root} has folders of {len(labels)} classes, not of {self.classes}")
        found: dict[str, dict[str, list[Photo]]] = {split: {domain: [] for domain in folders} for split in SPLITS}
        for domain, folder in folders.items():
            for name, label in labels.items():
                inside = decode.inside(self.layout, folder / name)
                files = sorted(file for file in inside if file.lower().endswith(SUFFIX))
                parted = cut(np.array(files, dtype=object), key(self.layout.name, domain, name))
                below = (folder / name).relative_to(self.root).as_posix()
                for split, chosen in zip(SPLITS, parted, strict=True):
                    found[split][domain] += [Photo(f"{below}/{file}", label) for file in sorted(chosen)]
        return found

    def _classes(self, folder: Path) -> list[str]:
        return [name for name in decode.inside(self.layout, folder) if (folder / name).is_dir()]

    @property
    def images(self) -> dict[str, int]:
        """How many images each split has in the papers, those of all domains together."""
        return dict(zip(SPLITS, map(sum, zip(*self.domains.values(), strict=True)), strict=True))

    @property
    def samples(self) -> dict[str, list[str]]:
        """The names of every split's samples, domain after domain."""
        return {split: [photo.path for photo in own] for split, own in self._every.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """In what the splits are not those of the papers."""
        usual, found = {}, {}
        for domain, counts in self.domains.items():
            for split, count in zip(SPLITS, counts, strict=True):
                usual[f"{split} of {domain}"] = count
                found[f"{split} of {domain}"] = self.count(domain.lower(), split)
        lists = self.root / f"{next(iter(self.domains))}_train.txt"
        own = f"Splits of {self.layout.name} are Isonomy's own, as {lists.name} and the other lists are not there."
        return (*notes(self.layout.name, found, usual), *(() if lists.is_file() else (own,)))

    @cached_property
    def _every(self) -> dict[str, list[Photo]]:
        return {split: [photo for images in own.values() for photo in images] for split, own in self._photos.items()}

    def count(self, domain: str, split: str) -> int:  # noqa: D102
        return len(self._photos[split][domain])

    def example(self, split: str, index: int) -> Sample:
        """An image (3, H, W) and its class, as the network gets them.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            index: Its position in the split, as ``samples`` has it.
        """
        path, label = self._every[split][index]
        return {"image": photos.photo(self.root / path, index, self.size), "label": torch.tensor(label)}

    def network(self, design: Design, tasks: Sequence[str], seed: int) -> nn.Module:  # noqa: D102
        return architectures.build(design, dict.fromkeys(tasks, self.classes), self.size, seed)

    def loaded(self, domain: str, split: str, chunks: Sequence[Tensor], device: Any) -> Iterator[Split]:  # noqa: D102
        tasks = list(self._photos[split])
        first = sum(self.count(before, split) for before in tasks[: tasks.index(domain)])
        shifted = [(chunk + first).tolist() for chunk in chunks]
        for batch in loaded(partial(self.example, split), shifted, self.workers):
            yield Split(batch["image"], batch["label"]).to(device)


@dataclass
class Office31(Office):
    """31 things of an office, three domains."""

    layout: ClassVar[Layout] = Layout(
        "office31",
        "office31/\n"
        "    amazon/images/back_pack/frame_0001.jpg, …   and so on for dslr and webcam, 31 classes each\n"
        + LISTS.format(domain="amazon", last=30),
        "Get the archive of the original images from the authors' project page and unpack it.",
    )
    domains: ClassVar[dict[str, tuple[int, int, int]]] = {
        "amazon": (1680, 552, 585),
        "dslr": (287, 89, 122),
        "webcam": (466, 149, 180),
    }
    classes: ClassVar[int] = 31
    inside: ClassVar[str] = "images"

    name: str = "office31"
    summary: str = "Office-31: 31 things in three domains, each with images of its own (files)"
    tasks: tuple[Task, ...] = field(init=False)
    size: tuple[int, int] = (224, 224)
    batch_size: int = 64
    workers: int = 0


@dataclass
class OfficeHome(Office):
    """65 things of office and home, four domains."""

    layout: ClassVar[Layout] = Layout(
        "officehome",
        "officehome/\n"
        "    Art/Alarm_Clock/00001.jpg, …   and so on for Clipart, Product and Real_World, 65 classes each;\n"
        "                                   'Real World', with a space, will do\n"
        + LISTS.format(domain="Art", last=64),
        "Get the archive from the authors' project page and unpack it.",
    )
    domains: ClassVar[dict[str, tuple[int, int, int]]] = {
        "Art": (1435, 465, 527),
        "Clipart": (2596, 846, 923),
        "Product": (2635, 860, 944),
        "Real_World": (2586, 846, 925),
    }
    classes: ClassVar[int] = 65

    name: str = "officehome"
    summary: str = "Office-Home: 65 things in four domains, each with images of its own (files)"
    tasks: tuple[Task, ...] = field(init=False)
    size: tuple[int, int] = (224, 224)
    batch_size: int = 64
    workers: int = 0
