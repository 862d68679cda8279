"""Looks at every file of a data set that a user has: counts, ranges, what is damaged, and a sheet of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isonomy.bench.data import NAMES, load, maps
from isonomy.bench.data.dense import DenseTask
from isonomy.errors import IsonomyError

# Damaged files that are named; a thousand lines would help nobody.
NAMED = 10
# Mean depths between these many metres are metres; what lies beyond is in another unit.
METRES = (0.2, 50.0)


@dataclass
class Range:
    """What a field of a split holds, as far as it has been looked at.

    Attributes:
        shapes: Of its tensors, with ``*`` where they differ.
        dtype: Of its tensors.
        least: Smallest valid number.
        most: Largest one.
        total: Sum of the valid ones.
        valid: How many there are.
        numbers: Of all.
    """

    shapes: set[tuple[int, ...]] = field(default_factory=set)
    dtype: str = ""
    least: float = inf
    most: float = -inf
    total: float = 0.0
    valid: int = 0
    numbers: int = 0

    def add(self, values: Tensor, valid: Tensor) -> None:
        """Another sample.

        Args:
            values: Of any shape.
            valid: Which count, of the same shape.
        """
        self.shapes.add(tuple(values.shape))
        self.dtype = str(values.dtype).removeprefix("torch.")
        self.numbers += values.numel()
        if len(found := values[valid].double()):
            self.least, self.most = min(self.least, float(found.min())), max(self.most, float(found.max()))
            self.total += float(found.sum())
            self.valid += len(found)

    @property
    def mean(self) -> float:
        """Of the valid numbers."""
        return self.total / self.valid if self.valid else float("nan")

    @property
    def shape(self) -> str:
        """Of all samples: ``3x*x*`` where heights and widths differ."""
        if len({len(shape) for shape in self.shapes}) != 1:
            return "*"
        sides = [{str(side) for side in position} for position in zip(*self.shapes, strict=True)]
        return "x".join(side.pop() if len(side) == 1 else "*" for side in sides) or "a number"


@dataclass
class Findings:
    """What a data set's files hold.

    Attributes:
        counts: Samples of every split.
        looked: How many have been looked at, of all splits.
        usual: The papers', as far as they are known; those of a split that is not on disk are in ``"train"``.
        ranges: For every split those of every field, of each channel of those with directions.
        damaged: Why samples cannot be read, a sentence each.
        doubts: What is readable and hardly right, a sentence each.
        notes: In what the data set is not that of the papers.
    """

    counts: dict[str, int]
    looked: int
    usual: Mapping[str, int]
    ranges: dict[str, dict[str, Range]]
    damaged: list[str]
    doubts: list[str]
    notes: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The findings for people."""
        for split, ranges in self.ranges.items():
            papers = f" (papers: {self.usual[split]} on disk)" if split in self.usual else ""
            yield f"{split}: {self.counts[split]} samples{papers}"
            for name, found in ranges.items():
                gone = 100 * (1 - found.valid / found.numbers) if found.numbers else 0.0
                values = f"{found.least:.4g} to {found.most:.4g}, mean {found.mean:.4g}, none {gone:.3g} %"
                yield f"  {name:<12} {found.shape:<12} {found.dtype:<8} {values}"
        yield from self.notes
        yield from (f"Doubtful: {doubt}" for doubt in self.doubts)
        yield from self.damaged[:NAMED]
        if len(self.damaged) > NAMED:
            yield f"... and {len(self.damaged) - NAMED} more."
        yield f"{len(self.damaged)} of {self.looked} samples are damaged."


def opened(name: str) -> Any:
    """A data set of files, by its name.

    Args:
        name: As for ``load``.

    Raises:
        IsonomyError: There is none, or it has no files.
    """
    problem = load(name)
    if not hasattr(problem, "example"):
        raise IsonomyError(f"Data set {name!r} is made here and has no files: check one of {', '.join(_of_files())}.")
    return problem


def _of_files() -> Iterable[str]:
    return (name for name in NAMES if hasattr(load(name), "example"))


def check(problem: Any, limit: int | None = None, watch: Callable[[Any], Iterable[Any]] = iter) -> Findings:
    """Reads all samples of all splits.

    Args:
        problem: A data set with ``samples`` and ``example(split, index)``.
        limit: How many of every split to look at, spread evenly; None for all.
        watch: Wraps what is gone through, to show how far it is.

    Raises:
        IsonomyError: The folder is not the data set's, or ``limit`` is less than 1.
    """
    if limit is not None and limit < 1:
        raise IsonomyError(f"--limit is {limit}: it must be at least 1.")
    counts = {split: len(names) for split, names in problem.samples.items()}
    tasks = {task.name: task for task in problem.tasks}
    chosen = [(split, index) for split, count in counts.items() for index in spread(count, limit)]
    ranges: dict[str, dict[str, Range]] = {split: {} for split in counts}
    found = Findings(counts, len(chosen), getattr(problem, "images", {}), ranges, [], [], ())
    for split, index in watch(chosen):
        try:
            sample = problem.example(split, index)
        except IsonomyError as error:
            found.damaged.append(str(error))
            continue
        for name, values, valid in _fields(sample, tasks):
            found.ranges[split].setdefault(name, Range()).add(values, valid)
    try:
        found.notes = problem.notes
    except IsonomyError as error:  # some notes are of what is in the files
        if str(error) not in found.damaged:
            found.damaged.append(str(error))
    found.doubts.extend(_doubts(problem, found, whole=limit is None and not found.damaged))
    return found


def spread(count: int, limit: int | None) -> list[int]:
    """Indices of so many samples, from the first to the last.

    Args:
        count: How many there are.
        limit: How many are wanted at most; None for all.
    """
    wanted = count if limit is None else min(limit, count)
    return [int(index) for index in np.linspace(0, count - 1, wanted).round()]


def _fields(sample: Mapping[str, Any], tasks: Mapping[str, Any]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The names of a sample's fields, their numbers and which are valid; vectors a component at a time."""
    for name, given in sample.items():
        values = torch.as_tensor(given)
        valid = _valid(values, tasks.get(name))
        if name != "image" and values.ndim == 3 and len(values) > 1:
            yield from ((f"{name}[{i}]", channel, valid[i]) for i, channel in enumerate(values))
        else:
            yield name, values, valid


def _valid(values: Tensor, task: Any) -> Tensor:
    """Which numbers are not there to say that there is none; ``isonomy.bench.data.maps`` has the conventions."""
    there = ~values.isnan()
    if not isinstance(task, DenseTask) or task.metrics[0].name == "L1":
        return there
    if values.is_floating_point():
        return there & (values != 0).any(0)
    return ~torch.isin(values, values.new_tensor([maps.IGNORED, maps.PADDING]))


def _doubts(problem: Any, found: Findings, whole: bool) -> Iterator[str]:
    """What can be read and is hardly right."""
    for split, ranges in found.ranges.items():
        image = ranges.get("image")
        if image and image.valid and image.dtype.startswith("float"):
            if image.least < -0.001 or image.most > 1.001:
                yield f"images of {split} go from {image.least:g} to {image.most:g}, and should from 0 to 1."
            elif image.most < 0.02:
                yield f"images of {split} are nearly black, at most {image.most:g}: were they divided by 255 twice?"
        depth = ranges.get("depth")
        metres = any(metric.unit == "m" for task in problem.tasks if task.name == "depth" for metric in task.metrics)
        if depth and metres and depth.valid and not METRES[0] < depth.mean < METRES[1]:
            yield f"depths of {split} are {depth.mean:g} on average, which are hardly metres."
        yield from (f"no sample of {split} has any {name}." for name, field in ranges.items() if not field.valid)
    for task in problem.tasks if whole else ():
        labels = [ranges[task.name] for ranges in found.ranges.values() if task.name in ranges]
        if isinstance(task, DenseTask) and task.metrics[0].name == "mIoU" and any(each.valid for each in labels):
            last = max(each.most for each in labels)
            if 2 * (last + 1) < task.outputs:
                yield f"labels of {task.name} end at {last:g}: are they those of {task.outputs} classes?"
