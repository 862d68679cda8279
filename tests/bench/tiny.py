"""A data set that trains in milliseconds: three linear regressions of one random input."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isonomy.bench import plan
from isonomy.bench.architectures.hps import HPS
from isonomy.bench.cell import SINGLE, Cell
from isonomy.bench.data import Embedded, Losses, Metric, Task
from isonomy.bench.parts import own
from isonomy.bench.recipe import Recipe
from isonomy.bench.seeds import order
from isonomy.bench.trainer import Trainer

SCALES = {"a": 1.0, "b": 0.1, "c": 10.0}


@dataclass
class Tiny(Embedded):
    name: str = "tiny"
    summary: str = "three regressions"
    version: int = 1
    tasks: tuple[Task, ...] = tuple(
        Task(name, (Metric("mse", up=False), Metric("score", up=True)), itemgetter("score")) for name in SCALES
    )
    architectures: tuple[str, ...] = ("hps",)
    backbones: tuple[str, ...] = ()
    size: None = None
    levels: tuple[str, ...] = ("features", "parameters")
    recipe: Recipe = Recipe(epochs=2, learning_rate=1e-2, schedule="linear")
    fail: str = ""

    def network(self, design: Any, tasks: Sequence[str], seed: int) -> nn.Module:
        if self.fail in tasks:
            raise RuntimeError("no network today\nsecond line")
        return HPS(lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh()), {t: lambda: nn.Linear(8, 1) for t in tasks}, seed)

    def batches(self, seed: int, epoch: int, device: Any, split: str = "train") -> Iterator[tuple[Tensor, Tensor]]:
        x, y = _data(split)
        for chosen in map(own, torch.split(order(len(x), seed, epoch), 16)):
            yield x[chosen], y[chosen]

    def losses(self, model: nn.Module, batch: Any, tasks: Sequence[str]) -> Losses:
        x, y = batch
        feature, predictions, *_ = model(x)
        columns = {name: y[:, i] for i, name in enumerate(SCALES)}
        losses = {t: SCALES[t] * (predictions[t][:, 0] - columns[t]).square().mean() for t in tasks}
        return Losses(losses, feature)

    def evaluate(
        self, model: nn.Module, tasks: Sequence[str], split: str, thorough: bool = True
    ) -> dict[str, dict[str, float]]:
        x, y = _data(split)
        with torch.no_grad():
            predictions = model(x)[1]
        result = {}
        for task in tasks:
            error = float((predictions[task][:, 0] - y[:, list(SCALES).index(task)]).square().mean())
            result[task] = {"mse": error, "score": 1 / (1 + error)}
        return result


def _data(split: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed({"train": 0, "val": 1, "test": 2}[split])
    x = torch.randn(64, 4, generator=generator)
    mixing = torch.randn(4, 3, generator=torch.Generator().manual_seed(3))
    return x, torch.sin(x @ mixing)


def load(name: str) -> Tiny:
    """A stand-in for ``isonomy.bench.data.load`` that worker processes can import."""
    return Tiny()


def load_failing(name: str) -> Tiny:
    """As ``load``, but no network with a head for ``b`` can be made."""
    return Tiny(fail="b")


def cell(method: str, out: Path, load: Any = load, **flags: Any) -> Cell:
    """One of the cells that flags ask for, of seed 0."""
    wanted = {"data": "tiny", "seeds": 1, "epochs": 3, "methods": [method], **flags}
    if method.startswith(SINGLE):
        wanted |= {"methods": ["ew"], "trials": None}
    return next(each for each in plan.cells(plan.resolve(wanted, out, False, load), load) if each.name == f"{method}/0")


def trainer(method: str, problem: Any = None, **flags: Any) -> Trainer:
    """A trainer of that cell, outside of any folder."""
    found = problem or Tiny()
    return Trainer(cell(method, Path("nowhere"), lambda name: found, **flags), found)


class Silent:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def epoch(self, cell: Any, done: int) -> None:
        self.events.append((cell.name, f"epoch {done}"))

    def finished(self, cell: Any) -> None:
        self.events.append((cell.name, "finished"))

    def failed(self, cell: Any, reason: str) -> None:
        self.events.append((cell.name, f"failed: {reason}"))
