"""One cell: trains a network with a balancer, epoch by epoch, from its last checkpoint if it has one."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import isonomy
from isonomy import engine
from isonomy.bench import data, records
from isonomy.bench.plan import Cell
from isonomy.bench.seeds import drawn, key

# Steps between two looks at the gradients. A look costs a backward pass a task through the heads.
LOOK_EVERY = 20


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs the block on one thread, so that sums come out the same however many cells run at once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Trainer:
    """A cell's model, optimiser and balancer, and the step they make together.

    Args:
        cell: What to train.
        problem: Its data set.
    """

    def __init__(self, cell: Cell, problem: data.Problem) -> None:
        self.cell, self.problem = cell, problem
        config = cell.config
        self.fabric = Fabric(accelerator=config["device"], devices=1)
        self.network = problem.network(config["architecture"], cell.tasks, cell.seed)
        adam = torch.optim.Adam(self.network.parameters(), lr=config["learning_rate"])
        self.model, self.optimizer = self.fabric.setup(self.network, adam)
        with drawn(cell.seed, "balancer"):
            self.balancer = isonomy.build(config["balancer"], tasks=cell.tasks, **config["options"])
        self.balancer.to(self.fabric.device)
        self.hears_losses = "step_losses" in isonomy.catalogue.find(config["balancer"]).needs

    def shared(self, feature: Tensor | None) -> Tensor | list[nn.Parameter]:
        """Where this cell's method measures gradients."""
        return feature if self.cell.config["level"] == "features" and feature is not None else self.parameters()

    def parameters(self) -> list[nn.Parameter]:
        """The shared parameters."""
        return list(self.network.shared_parameters())  # type: ignore[operator]

    def step(self, batch: Any, look: Callable[[dict[str, Tensor], Tensor | None], None] | None = None) -> Tensor:
        """One training step.

        Args:
            batch: Of the data set.
            look: Called with the losses and the shared feature before the balancer is.

        Returns:
            The losses, shape (T,).
        """
        losses, feature = self.problem.losses(self.model, batch, self.cell.tasks)
        if look is not None:
            look(losses, feature)
        loss = self.balancer(losses, shared=self.shared(feature))
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        if self.hears_losses:
            with torch.no_grad():
                self.balancer.step_end(self.problem.losses(self.model, batch, self.cell.tasks)[0])
        return torch.stack([value.detach() for value in losses.values()])

    def epoch(self, number: int) -> records.Json:
        """Trains one epoch.

        Args:
            number: From 0.

        Returns:
            What ``metrics.jsonl`` says of it, without the validation metrics.
        """
        began = time.perf_counter()
        total = torch.zeros(len(self.cell.tasks), device=self.fabric.device, dtype=torch.float64)
        looks: dict[str, list[Any]] = defaultdict(list)
        trace: list[list[float]] = []

        def look(losses: dict[str, Tensor], feature: Tensor | None) -> None:
            at = feature if feature is not None else self.parameters()
            gramian = engine.measure(list(losses.values()), at)
            looks["gradient_norms"].append(gramian.norms.tolist())
            looks["cosines"].append(gramian.cosines.tolist())

        if self.cell.config["schedule"] == "linear":
            for group in self.optimizer.param_groups:
                group["lr"] = self.cell.config["learning_rate"] * (1 - number / self.cell.config["epochs"])
        steps = 0
        self.model.train()
        # A draw from torch's own generator, wherever it comes from, depends on the epoch and not on the ones before.
        torch.manual_seed(key(self.cell.seed, "epoch", number))
        for steps, batch in enumerate(self.problem.batches(self.cell.seed, number, self.fabric.device), start=1):
            looking = steps % LOOK_EVERY == 1
            total += self.step(batch, look if looking else None)
            if looking:
                report = self.balancer.report
                looks["loss_weights"].append(report.loss_weights.tolist())
                if report.weights is not None:
                    looks["weights"].append(report.weights.tolist())
            if self.problem.trace_every and steps % self.problem.trace_every == 0:
                trace.append(self.problem.trace(self.network))
        line: records.Json = {
            "epoch": number + 1,
            "train_losses": dict(zip(self.cell.tasks, (total / steps).tolist(), strict=True)),
        }
        for name in ("loss_weights", "weights", "gradient_norms"):
            columns = zip(*looks[name], strict=True)
            line[name] = dict(zip(self.cell.tasks, map(fmean, columns), strict=True)) if looks[name] else None
        line["cosines"] = _mean_matrix(looks["cosines"])
        if trace:
            line["trace"] = trace
        line["seconds"] = time.perf_counter() - began
        return line

    def evaluate(self, split: str) -> dict[str, dict[str, float]]:
        """Every metric of every task of the cell on a split."""
        self.model.eval()
        return self.problem.evaluate(self.model, self.cell.tasks, split)

    def state(self, epoch: int) -> records.Json:
        """A checkpoint after so many epochs."""
        return {
            "epoch": epoch,
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "balancer": self.balancer.state_dict(),
        }

    def restore(self, state: records.Json) -> None:
        """Goes on from a checkpoint."""
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.balancer.load_state_dict(state["balancer"])


def _mean_matrix(matrices: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    return [[fmean(entries) for entries in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]


def run_cell(
    cell: Cell,
    out: Path,
    load: Callable[[str], data.Problem] = data.load,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Trains a cell to its end, from where it was left.

    Args:
        cell: What to train.
        out: The sweep's folder.
        load: Finds data sets.
        on_epoch: Called with the number of epochs done: at the start, and after each.
    """
    folder = out / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    records.write_json(folder / records.CONFIG, cell.config)
    with one_thread():
        trainer = Trainer(cell, load(cell.config["data"]))
        state = records.load_checkpoint(folder, trainer.fabric.device)
        done = 0
        if state is not None:
            trainer.restore(state)
            done = state["epoch"]
        lines = records.read_metrics(folder)[:done]
        on_epoch(done)
        for epoch in range(done, cell.config["epochs"]):
            line = trainer.epoch(epoch)
            line["validation"] = trainer.evaluate("val")
            trainer.balancer.epoch_end(_flat(line["validation"]))
            lines.append(line)
            records.write_lines(folder / records.METRICS, lines)
            records.save_checkpoint(folder / records.CHECKPOINT, trainer.state(epoch + 1))
            on_epoch(epoch + 1)
        # The test split is looked at once, by the last epoch's model; the line that says so makes the cell finished.
        lines[-1]["test"] = trainer.evaluate("test")
        records.write_lines(folder / records.METRICS, lines)
    (folder / records.ERROR).unlink(missing_ok=True)


def _flat(metrics: dict[str, dict[str, float]]) -> dict[str, float]:
    """The first metric of each task, by task: what a method's ``epoch_end`` hears."""
    return {task: next(iter(values.values())) for task, values in metrics.items()}
