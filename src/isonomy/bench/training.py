"""The epochs of a training: from its last checkpoint, if it has one, to the end of its budget."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from isonomy import engine
from isonomy.bench import processes, records
from isonomy.bench.architectures import LAST_LAYER
from isonomy.bench.delta import average
from isonomy.bench.recipe import BEST_TEST, BEST_VAL, MEAN_LAST_10, best
from isonomy.bench.seeds import key
from isonomy.bench.trainer import Feature, Trainer
from isonomy.distributed import mean

# Steps between two looks at the gradients. A look costs a backward pass a task through what is not shared.
LOOK_EVERY = 20
# What the best model is the best of.
WATCHED = {BEST_VAL: "validation", BEST_TEST: "watched"}


def train_epoch(trainer: Trainer, number: int) -> records.Json:
    """Trains one epoch.

    Args:
        trainer: Of the cell.
        number: From 0.

    Returns:
        What ``metrics.jsonl`` says of it, without the validation metrics.
    """
    began = time.perf_counter()
    cell, problem = trainer.cell, trainer.problem
    total = torch.zeros(len(cell.tasks), device=trainer.fabric.device, dtype=torch.float64)
    looks: dict[str, list[Any]] = defaultdict(list)
    # Studies of gradient norms measure at the last shared layer; not every data set's network says which that is.
    looks_at_last_layer = LAST_LAYER in problem.levels
    trace: list[list[float]] = []

    def look(losses: dict[str, Tensor], feature: Feature) -> None:
        at = trainer.last_layer() if feature is None or looks_at_last_layer else feature
        gramian = engine.measure(list(losses.values()), at)
        looks["gramian"] = [gramian]
        looks["gradient_norms"].append(gramian.norms.tolist())
        looks["cosines"].append(gramian.cosines.tolist())
        looks["dots"].append(gramian.matrix.tolist())

    steps = 0
    trainer.model.train()
    # A draw from torch's own generator, wherever it comes from, depends on the epoch and not on the ones before.
    torch.manual_seed(key(cell.seed, *processes.own_draws("epoch", number)))
    for steps, batches in enumerate(trainer.begin(number), start=1):
        looking = steps % LOOK_EVERY == 1
        total += trainer.step(batches, look if looking else None)
        if looking:
            report = trainer.balancer.report
            looks["loss_weights"].append(report.loss_weights.tolist())
            if report.weights is not None:
                looks["weights"].append(report.weights.tolist())
            if report.weights is not None or not trainer.balancer.levels:
                weights = report.loss_weights if report.weights is None else report.loss_weights * report.weights
                looks["alignment"].append(looks["gramian"][0].alignment(weights.double()).tolist())
        if problem.trace_every and steps % problem.trace_every == 0:
            trace.append(problem.trace(trainer.network))
    mean(total)
    line: records.Json = {
        "epoch": number + 1,
        "train_losses": dict(zip(cell.tasks, (total / steps).tolist(), strict=True)),
    }
    for name in ("loss_weights", "weights", "gradient_norms", "alignment"):
        columns = zip(*looks[name], strict=True)
        line[name] = dict(zip(cell.tasks, map(fmean, columns), strict=True)) if looks[name] else None
    for name in ("cosines", "dots"):
        line[name] = _mean_matrix(looks[name])
    if trace:
        line["trace"] = trace
    line |= trainer.procedure.record()
    line["seconds"] = time.perf_counter() - began
    return line


def _mean_matrix(matrices: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    return [[fmean(entries) for entries in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]


def train(trainer: Trainer, folder: Path, on_epoch: Callable[[int], None]) -> list[records.Json]:
    """Trains a network to the end of its budget, from where it was left.

    Args:
        trainer: Fresh.
        folder: Where it leaves its configuration, metrics and checkpoints.
        on_epoch: Called with the number of epochs done: at the start, and after each.

    Returns:
        The lines of ``metrics.jsonl``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records.write_json(folder / records.CONFIG, trainer.cell.config)
    state = records.load_checkpoint(folder, trainer.fabric.device)
    done = 0
    if state is not None:
        trainer.restore(state)
        done = state["epoch"]
    lines = records.read_metrics(folder)[:done]
    trainer.improved = [line["improved"] for line in lines]
    on_epoch(done)
    recipe, watched = trainer.recipe, WATCHED.get(trainer.recipe.select, "validation")
    for epoch in range(done, recipe.epochs):
        line = train_epoch(trainer, epoch)
        lines.append(line)
        if "val" in trainer.problem.splits:
            line["validation"] = trainer.evaluate("val")
        if recipe.select == BEST_TEST:
            line["watched"] = trainer.evaluate("test", thorough=False)
        if recipe.select == MEAN_LAST_10 and recipe.epochs - 10 <= epoch < recipe.epochs - 1:
            line["watched"] = trainer.evaluate("test")  # "test" is only what a finished cell's last line has
        line["improved"] = watched in line and best([each[watched] for each in lines], trainer.up) == epoch
        trainer.improved.append(line["improved"])
        scores = trainer.scores(line["validation"]) if "validation" in line else None
        trainer.balancer.epoch_end(scores, learning_rate=trainer.rate(epoch + 1))
        if recipe.select in WATCHED and line["improved"]:
            records.save_model(folder, trainer.network.state_dict())
        records.write_lines(folder / records.METRICS, lines)
        records.save_checkpoint(folder / records.CHECKPOINT, trainer.state(epoch + 1))
        on_epoch(epoch + 1)
    return lines


def test(trainer: Trainer, folder: Path, lines: Sequence[records.Json]) -> None:
    """Tests a trained network, and notes the result in the last line as the recipe wants it.

    Args:
        trainer: Of the cell; has the model that counts afterwards, where it is one.
        folder: Where ``train`` has left its checkpoints.
        lines: Of all epochs.
    """
    recipe, last = trainer.recipe, lines[-1]
    last["test"] = trainer.evaluate("test")
    if recipe.select == MEAN_LAST_10:
        counted = lines[-10:]
        tests = [*(line["watched"] for line in counted[:-1]), last["test"]]
        last["selected"] = {"epochs": [line["epoch"] for line in counted], "test": average(tests)}
    elif recipe.select in WATCHED:
        chosen = lines[best([line[WATCHED[recipe.select]] for line in lines], trainer.up)]
        if chosen is not last:
            trainer.network.load_state_dict(records.load_model(folder, trainer.fabric.device))
        tested = last["test"] if chosen is last else trainer.evaluate("test")
        last["selected"] = {"epochs": [chosen["epoch"]], "test": tested}
