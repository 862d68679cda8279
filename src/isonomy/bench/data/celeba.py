"""``celeba``: forty attributes of faces, each a task: the many-task case of the IMTL paper's table 2.

Liu et al., "Deep learning face attributes in the wild", ICCV 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench import architectures
from isonomy.bench.architectures import Design
from isonomy.bench.data import Embedded, Losses, Metric, Task, decode, photos
from isonomy.bench.data.files import HONEST, PAPER, notes
from isonomy.bench.data.loading import Sample, loaded
from isonomy.bench.data.roots import Layout, damaged
from isonomy.bench.parts import own, turns
from isonomy.bench.recipe import BEST_VAL, LAST, Recipe
from isonomy.bench.seeds import order
from isonomy.errors import IsonomyError, unknown

ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes",
    "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling",
    "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace",
    "Wearing_Necktie", "Young",
)  # fmt: skip
# As they are numbered in the list of splits.
ON_DISK = ("train", "val", "test")
IMAGES = {"train": 162_770, "val": 19_867, "test": 19_962}
FOLDER, ARCHIVE = "img_align_celeba", "img_align_celeba.zip"
LABELS, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
# Images that are judged at once, which bounds the memory.
BLOCK = 512

LAYOUT = Layout(
    "celeba",
    f"""\
celeba/
    {FOLDER}/000001.jpg … 202599.jpg   the aligned faces; may be below Img/
    {LABELS}   their number, the names of the attributes, then a line for each: 000001.jpg -1 1 …; may be below Anno/
    {PARTITION}   a line for each: 000001.jpg 0, where 0 is train, 1 val and 2 test; may be below Eval/
""",
    "Get the archive and both lists from the authors' project page and unpack it.",
)


class Batch(NamedTuple):
    """Faces, shape (B, 3, H, W), in [0, 1], and their attributes, 0 or 1, shape (B, 40)."""

    images: Tensor
    labels: Tensor


class Faces(NamedTuple):
    """A split: files and their attributes, 0 or 1, shape (N, 40)."""

    names: list[str]
    labels: NDArray[np.int8]


def _score(metrics: Mapping[str, float]) -> float:
    return metrics["accuracy"] / 100


@dataclass
class CelebA(Embedded):
    """Which of forty attributes does a face have? See ``Problem`` for the members.

    The IMTL paper's text has neither its network nor its optimiser; these are the settings of the public code of MGDA
    (Adam at 5e-4, batches of 256, images of 64 x 64), with one logit an attribute. ``resnet18_pooled:hidden=0`` has,
    like that code, no hidden layer.

    Attributes:
        size: Height and width that the images are brought to.
        split: ``"honest"``: the three splits of the release; ``"paper"``: tested on its validation images, as in IMTL,
            with nothing to validate on.
        balanced: Whether a task's accuracy is joined by the mean of those on faces with the attribute and without: most
            attributes are rare, and to deny them all is right four times in five.
        batch_size: Images a step.
        workers: Processes that read ahead; results do not depend on how many.
    """

    options: ClassVar[tuple[str, ...]] = ("size", "split", "balanced", "batch_size", "workers")
    layout: ClassVar[Layout] = LAYOUT

    name: str = "celeba"
    summary: str = "CelebA: forty attributes of faces (files)"
    version: int = 1
    tasks: tuple[Task, ...] = field(init=False)
    architectures: tuple[str, ...] = ("hps", "mmoe", "cgc", "dselect_k")
    backbones: tuple[str, ...] = ("resnet18_pooled",)
    levels: tuple[str, ...] = ("features", "parameters", "last_layer")
    recipe: Recipe = field(init=False)
    size: tuple[int, int] = (64, 64)
    split: str = HONEST
    balanced: bool = False
    batch_size: int = 256
    workers: int = 0

    def __post_init__(self) -> None:
        if self.split not in (HONEST, PAPER):
            raise unknown("split of celeba", self.split, (HONEST, PAPER))
        photos.check_options("celeba", self.size, self.batch_size, self.workers)
        metrics = [Metric("accuracy", up=True, unit="%")]
        if self.balanced:
            metrics.append(Metric("balanced", up=True, unit="%"))
        self.tasks = tuple(Task(name.lower(), tuple(metrics), _score) for name in ATTRIBUTES)
        select = LAST if self.split == PAPER else BEST_VAL
        self.recipe = Recipe(epochs=100, learning_rate=5e-4, select=select)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are."""
        return ("train", "test") if self.split == PAPER else ON_DISK

    @cached_property
    def root(self) -> Path:
        """The data set's folder."""
        return LAYOUT.root()

    def _path(self, name: str, folder: str) -> Path:
        """A file's or folder's path, whichever of both layouts the user has."""
        return next((path for path in (self.root / name, self.root / folder / name) if path.exists()), self.root / name)

    @cached_property
    def _images(self) -> Path:
        """The folder of images, which may not have been unpacked."""
        images, archive = self._path(FOLDER, "Img"), self._path(ARCHIVE, "Img")
        if not images.exists() and archive.exists():
            start = photos.beginning(archive)
            cure = "unpack it" if start.startswith(b"PK") else f"and it is no archive, as it begins with {start!r}"
            raise LAYOUT.error(f"{images} is missing, where {archive} is: {cure}")
        LAYOUT.require(images)
        return images

    @cached_property
    def _faces(self) -> dict[str, Faces]:
        images, labels, partition = self._images, self._path(LABELS, "Anno"), self._path(PARTITION, "Eval")
        LAYOUT.require(labels, partition)
        attributes, there = _attributes(labels), decode.inside(LAYOUT, images)
        names: dict[str, list[str]] = {split: [] for split in ON_DISK}
        for index, line in enumerate(filter(None, map(str.split, _lines(partition)))):
            if len(line) != 2 or line[1] not in ("0", "1", "2"):
                raise damaged(partition, index, f"{' '.join(line)!r} is no file and 0, 1 or 2")
            if line[0] not in attributes:
                raise damaged(labels, index, f"{line[0]} has no line, though {partition.name} names it")
            if line[0] not in there:
                raise LAYOUT.error(f"{images / line[0]} is missing, or {partition} names it twice")
            there.remove(line[0])
            names[ON_DISK[int(line[1])]].append(line[0])
        found = {}
        for split in ("train", "val") if self.split == PAPER else ON_DISK:
            if not (own := names[split]):
                raise LAYOUT.error(f"{partition} has no image for split {split!r}")
            found[split] = Faces(own, np.stack([attributes[name] for name in own]))
        if self.split == PAPER:
            found["test"] = found.pop("val")
        return found

    @property
    def images(self) -> dict[str, int]:
        """How many images each split has in the release."""
        return {"train": IMAGES["train"], "test": IMAGES["val"]} if self.split == PAPER else IMAGES

    @property
    def samples(self) -> dict[str, list[str]]:
        """The names of every split's samples."""
        return {split: faces.names for split, faces in self._faces.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """In what the splits are not those of the papers."""
        return notes("celeba", {split: self.count(split) for split in self.images}, self.images)

    def count(self, split: str) -> int:
        """How many images a split has."""
        if split not in self._faces:
            raise IsonomyError(f"Data set {self.name!r} has no split {split!r}: leave split={self.split} out.")
        return len(self._faces[split].names)

    def example(self, split: str, index: int) -> Sample:
        """An image (3, H, W) and its attributes, 0 or 1, shape (40,), as the network gets them.

        Args:
            split: One of ``splits``.
            index: Its position in the split.
        """
        names, labels = self._faces[split]
        image = photos.photo(self._images / names[index], index, self.size)
        return {"image": image, "label": torch.from_numpy(labels[index]).long()}

    def network(self, design: Design, tasks: Sequence[str], seed: int) -> nn.Module:  # noqa: D102
        return architectures.build(design, dict.fromkeys(tasks, 1), self.size, seed)

    def _loaded(self, split: str, chunks: Sequence[Tensor], device: Any) -> Iterator[Batch]:
        batches = [chunk.tolist() for chunk in chunks]
        for batch in loaded(partial(self.example, split), batches, self.workers):
            yield Batch(batch["image"].to(device), batch["label"].to(device))

    def batches(self, seed: int, epoch: int, device: Any, split: str = "train") -> Iterator[Batch]:  # noqa: D102
        visited = order(self.count(split), seed, epoch)
        # A smaller last batch would be weighted like the others, and normalised by few images.
        whole = max(len(visited) // self.batch_size, 1) * self.batch_size
        yield from self._loaded(split, [own(each) for each in torch.split(visited[:whole], self.batch_size)], device)

    def losses(self, model: Callable[..., Any], batch: Batch, tasks: Sequence[str]) -> Losses:  # noqa: D102
        output = model(batch.images)
        losses = {
            task: functional.binary_cross_entropy_with_logits(output.predictions[task][:, 0], truth.float())
            for task, truth in self._truths(batch, tasks).items()
        }
        return Losses(losses, output.feature, output.penalty)

    def _truths(self, batch: Batch, tasks: Sequence[str]) -> dict[str, Tensor]:
        columns = {task.name: column for column, task in enumerate(self.tasks)}
        return {task: batch.labels[:, columns[task]] for task in tasks}

    def evaluate(  # noqa: D102
        self, model: nn.Module, tasks: Sequence[str], split: str, thorough: bool = True
    ) -> dict[str, dict[str, float]]:
        from isonomy.bench.metrics import Accuracy  # noqa: PLC0415 - seconds that only training has to spend

        device = next(model.parameters()).device
        judges = {task: [Accuracy().to(device) for _ in range(3 if self.balanced else 1)] for task in tasks}
        for batch in self._loaded(split, turns(torch.split(torch.arange(self.count(split)), BLOCK)), device):
            with torch.inference_mode():
                predictions = model(batch.images).predictions
            for task, truth in self._truths(batch, tasks).items():
                logits = functional.pad(predictions[task], (1, 0))  # that of the other answer is 0
                # All faces, those without the attribute, those with it.
                for judge, chosen in zip(judges[task], (truth >= 0, truth == 0, truth == 1), strict=False):
                    judge.update(logits[chosen], truth[chosen])
        values = {}
        for task, parts in judges.items():
            accuracy, *halves = (float(judge.compute()["accuracy"]) for judge in parts)
            values[task] = {"accuracy": accuracy, **({"balanced": fmean(halves)} if halves else {})}
        return values


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines()


def _attributes(path: Path) -> dict[str, NDArray[np.int8]]:
    """The attributes of every image of a list, 0 or 1, shape (40,)."""
    count, names, *lines = [*_lines(path), "", ""]
    if not count.strip().isdecimal():
        raise LAYOUT.error(f"{path} begins with {count[:15]!r}, not with the number of images: it is another file")
    if tuple(names.split()) != ATTRIBUTES:
        raise LAYOUT.error(f"{path} does not name the forty attributes in its second line")
    found = {}
    for index, (name, *values) in enumerate(filter(None, map(str.split, lines))):
        if len(values) != len(ATTRIBUTES) or not {"-1", "1"}.issuperset(values):
            raise damaged(path, index, f"{name} has not forty times 1 or -1")
        found[name] = np.array([value == "1" for value in values], dtype=np.int8)
    if len(found) != int(count):
        raise LAYOUT.error(f"{path} announces {count.strip()} images and has {len(found)}")
    return found
