"""What was seen of a training, look by look: the numbers that findings and figures are made of."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.report import StepReport

FILE = "looks.jsonl"
COLUMNS = ("losses", "loss_weights", "weights", "norms")


@dataclass(frozen=True)
class Recording:
    """N looks at T tasks, as float64 tensors on the CPU; NaN stands for what was not there.

    Attributes:
        tasks: Their names.
        steps: How many steps had been taken before each look, shape (N,), int64.
        losses: Shape (N, T).
        loss_weights: Effective weights of the loss balancers, shape (N, T).
        weights: The gradient balancer's on top of these, shape (N, T); NaN for a method that has none.
        norms: Of the balanced losses' gradients, shape (N, T).
        cosines: Of the gradients in pairs, shape (N, T, T).
        seconds: A step's, the mean since the look before, shape (N,); NaN where nobody took the time.
        skipped: Steps since the look before that were skipped for a number that is not finite, shape (N,).
        method: What balanced them.
        place: Where gradients were taken, such as "the shared feature".
        unit: What ``steps`` counts, ``"step"`` or ``"epoch"``.
    """

    tasks: tuple[str, ...]
    steps: Tensor
    losses: Tensor
    loss_weights: Tensor
    weights: Tensor
    norms: Tensor
    cosines: Tensor
    seconds: Tensor = field(default_factory=lambda: torch.zeros(0))
    skipped: Tensor = field(default_factory=lambda: torch.zeros(0))
    method: str = "plain summing"
    place: str = "the shared part"
    unit: str = "step"

    def __post_init__(self) -> None:
        for name, empty in (("seconds", torch.nan), ("skipped", 0.0)):
            if len(getattr(self, name)) != len(self):
                object.__setattr__(self, name, torch.full((len(self),), empty, dtype=torch.float64))

    def __len__(self) -> int:
        return len(self.steps)

    @classmethod
    def of(cls, reports: Sequence[StepReport], **facts: Any) -> Recording:
        """The recording of reports of consecutive steps.

        Args:
            reports: At least one, all of the same tasks.
            **facts: Further attributes, such as ``method``.
        """
        looks = [{"step": number, **as_look(report)} for number, report in enumerate(reports)]
        return cls.read(reports[0].tasks, looks, **facts)

    @classmethod
    def read(cls, tasks: Sequence[str], looks: Sequence[Mapping[str, Any]], **facts: Any) -> Recording:
        """The recording of looks as they are on disk, a mapping each.

        Args:
            tasks: Their names.
            looks: Each with ``step`` and the numbers by task, None for NaN; what is left out was not measured.
            **facts: Further attributes.
        """
        size = len(tasks)

        def column(name: str, *shape: int) -> Tensor:
            rows = [_numbers(look[name]) if look.get(name) is not None else [torch.nan] * size for look in looks]
            return torch.tensor(rows, dtype=torch.float64).reshape(len(looks), *shape)

        columns: dict[str, Any] = {name: column(name, size) for name in COLUMNS}
        blank = [[None] * size] * size
        cosines = [[_numbers(row) for row in look.get("cosines") or blank] for look in looks]
        return cls(
            tasks=tuple(tasks),
            steps=torch.tensor([look["step"] for look in looks], dtype=torch.int64),
            cosines=torch.tensor(cosines, dtype=torch.float64).reshape(len(looks), size, size),
            seconds=torch.tensor(_numbers(look.get("seconds") for look in looks), dtype=torch.float64),
            skipped=torch.tensor([look.get("skipped") or 0 for look in looks], dtype=torch.float64),
            **columns,
            **facts,
        )

    @property
    def raw_norms(self) -> Tensor:
        """Norms of the gradients of the losses as they are, before any balancing, shape (N, T)."""
        return self.norms / self.loss_weights.abs()

    @property
    def parts(self) -> Tensor:
        """Lengths of what each task puts into the aggregate, shape (N, T); NaN for a method without weights."""
        return self.weights.abs() * self.norms

    @property
    def dots(self) -> Tensor:
        """Inner products of the gradients of the losses as they are, shape (N, T, T)."""
        norms = self.norms / self.loss_weights  # with their signs, which cosines of balanced losses have, too
        return self.cosines * norms[:, None] * norms[:, :, None]

    @property
    def alignment(self) -> Tensor:
        """Cosine of each task's gradient with the aggregate, shape (N, T); 0 where either vanishes."""
        part, projected = self._projected()
        length = (part * projected).sum(1, keepdim=True).clamp_min(0).sqrt()
        cosines = (projected / length).clamp(-1, 1)
        return torch.where((length == 0) | (self.norms == 0), 0.0, cosines).where(~self.weights.isnan(), torch.nan)

    @property
    def shares(self) -> Tensor:
        """How much of the aggregate d is each task's part, ⟨w_t g_t, d⟩ / ‖d‖²: sums to 1, shape (N, T)."""
        part, projected = self._projected()
        products = part * projected
        return (products / products.sum(1, keepdim=True)).where(~self.weights.isnan(), torch.nan)

    @property
    def conflicts(self) -> Tensor:
        """The share of pairs of tasks whose gradients are more than 90 degrees apart, shape (N,)."""
        first, second = torch.triu_indices(len(self.tasks), len(self.tasks), 1)
        pairs = self.cosines[:, first, second]
        seen = ~pairs.isnan()
        return ((pairs < 0) & seen).sum(1).double() / seen.sum(1)

    def _projected(self) -> tuple[Tensor, Tensor]:
        """Each task's part with its sign, and its unit gradient's inner product with the aggregate; absent tasks 0."""
        part = (self.weights * self.norms).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        return part, (self.cosines.nan_to_num(nan=0.0) @ part[:, :, None]).squeeze(2)


def as_look(report: StepReport) -> dict[str, Any]:
    """A report as plain numbers, in one transfer from its device; NaN is None, which JSON knows.

    Args:
        report: Of a step.
    """
    size = len(report.tasks)
    norms, cosines = (report.norms, report.cosines) if report.gramian is not None else (None, None)
    given = {"losses": report.losses, "loss_weights": report.loss_weights, "weights": report.weights, "norms": norms}
    given["cosines"] = cosines
    there = {name: value for name, value in given.items() if value is not None}
    numbers = iter(torch.cat([value.detach().double().flatten() for value in there.values()]).tolist())
    look: dict[str, Any] = {}
    for name in there:
        rows = [[_plain(next(numbers)) for _ in range(size)] for _ in range(size if name == "cosines" else 1)]
        look[name] = rows if name == "cosines" else rows[0]
    return look


def _plain(number: float) -> float | None:
    return None if math.isnan(number) else number


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [torch.nan if value is None else value for value in values]


def replace(path: Path, text: str) -> None:
    """Writes a file beside its place and moves it there, so that a reader sees the old one or the new one, whole."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def load(path: Path) -> Recording:
    """The recording that a ``Monitor`` has left.

    Args:
        path: Its folder, or the file in it.

    Raises:
        IsonomyError: There is none, or it is damaged; a last line that a crash has cut off is none.
    """
    file = path / FILE if path.is_dir() else path
    header, looks = read_lines(file)
    return Recording.read(header["tasks"], looks, method=header["method"], place=header["place"])


def read_lines(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header and the looks of a recording's file.

    Args:
        file: Which.

    Raises:
        IsonomyError: It cannot be read.
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise IsonomyError(f"{file} cannot be read ({error}): pass the folder= that a Monitor was given.") from None
    lines, _, torn = text.rpartition("\n")
    del torn  # a line without its end is what a crash has left of it
    try:
        header, *looks = [json.loads(line) for line in lines.splitlines()]
        Recording.read(header["tasks"], looks, method=header["method"], place=header["place"])
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        raise IsonomyError(
            f"{file} is not a Monitor's recording, or is damaged: delete it and record again, or restore a copy."
        ) from None
    return header, looks
