"""Grid search: trains with fixed weights λ again and again, S = Σ_t λ_t ℓ_t, and keeps what is best on validation.

The score of a trial is Δp on the validation split against the single-task runs of the same seed, or, where one of
those has a 0 that nothing can be relative to, the bounded change of ``recipe.gain``; only the best trial's model sees
the test split. The first trial is plain summing. The first task's weight stays 1, since a common factor does no more
than a learning rate; the others are drawn from 0.01 to 100, evenly in their logarithm. Optuna's TPE proposes them: a
full grid of n weights costs n^(T−1) trainings, a search that learns from its trials makes use of any number.
A proposal depends on the seed and on the trials before it alone, so a search that was killed goes on as if it had not
been, and no finished trial is trained again.

Guo et al., "Revisit the Imbalance Optimization in Multi-Task Learning: An Experimental Analysis", 2025, where it is the
strongest simple baseline (Tables II, VI and VII).

Use it as the yardstick that a balancer has to beat at a fraction of the cost.

Args:
    trials: How many trainings one search makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from isonomy.bench import data, plan, records
from isonomy.bench import recipe as recipes
from isonomy.bench.cell import Cell
from isonomy.bench.delta import delta_p
from isonomy.bench.seeds import key
from isonomy.bench.trainer import Trainer
from isonomy.bench.training import train
from isonomy.errors import IsonomyError

LOWEST, HIGHEST = 0.01, 100.0
# Trials that are spread out before the search begins to learn from them.
SPREAD = 4
FOLDER = "trials"


def propose(tasks: Sequence[str], finished: Sequence[tuple[Sequence[float], float]], seed: int) -> list[float]:
    """The next trial's weights.

    Args:
        tasks: Names.
        finished: Weights and score of the trials before, in their order. A score that is not a number says nothing.
        seed: Of the search.

    Returns:
        λ, a number a task, the first of them 1.
    """
    if not finished:
        return [1.0] * len(tasks)
    space: dict[str, Any] = {
        task: optuna.distributions.FloatDistribution(LOWEST, HIGHEST, log=True) for task in tasks[1:]
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=key(seed, "trial", len(finished)) % 2**32, n_startup_trials=SPREAD, multivariate=True
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for weights, score in finished:
        if not math.isnan(score):
            chosen = dict(zip(tasks[1:], weights[1:], strict=True))
            study.add_trial(optuna.trial.create_trial(params=chosen, distributions=space, value=score))
    asked = study.ask(space).params
    return [1.0, *(asked[task] for task in tasks[1:])]


def search(
    cell: Cell, out: Path, problem: data.Problem, on_epoch: Callable[[int], None]
) -> tuple[Trainer, Path, list[records.Json]]:
    """Makes the trials that are left.

    Args:
        cell: The search's.
        out: The sweep's folder.
        problem: The data set.
        on_epoch: Called with the number of epochs done in all trials.

    Returns:
        The best trial's trainer as it ended, its folder, and its lines; the last of them lists all trials.
    """
    folder = out / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    records.write_json(folder / records.CONFIG, cell.config)
    up = {task.name: {metric.name: metric.up for metric in task.metrics} for task in data.select(problem, cell.tasks)}
    baseline: dict[str, Mapping[str, float]] = {}
    for task in cell.tasks:
        own = {task: up[task]}
        baseline |= _validation(records.read_metrics(plan.finished_single(out, task, cell)), cell.recipe, own)

    epochs = cell.recipe.epochs
    finished: list[tuple[list[float], float]] = []
    seconds: list[float] = []
    best: tuple[Trainer, Path, list[records.Json]] | None = None
    refusal = IsonomyError(f"{cell.name} has no trial: pass --trials 1 or more.")
    # With one task there is nothing to search.
    for number in range(cell.config["procedure"]["trials"] if len(cell.tasks) > 1 else 1):
        weights = propose(cell.tasks, finished, cell.seed)
        trial = replace(cell, config={**cell.config, "procedure": None, "options": {"weights": weights}})
        trainer, own_folder = Trainer(trial, problem), folder / FOLDER / str(number)
        try:
            lines = train(trainer, own_folder, partial(_report, on_epoch, number * epochs))
        except IsonomyError as error:
            # Weights under which losses run away are weights that are not wanted.
            finished.append((weights, math.nan))
            seconds.append(sum(line["seconds"] for line in records.read_metrics(own_folder)))
            refusal = error
            continue
        score = _score(_validation(lines, cell.recipe, up), baseline, up)
        if best is None or score > max((s for _, s in finished if not math.isnan(s)), default=-math.inf):
            best = trainer, own_folder, lines
        finished.append((weights, score))
        seconds.append(sum(line["seconds"] for line in lines))
    if best is None:
        raise refusal
    trainer, own_folder, lines = best
    lines[-1]["trials"] = [
        {"weights": weights, "delta_p": None if math.isnan(score) else score, "seconds": cost}
        for (weights, score), cost in zip(finished, seconds, strict=True)
    ]
    records.write_lines(folder / records.METRICS, lines)
    records.save_checkpoint(folder / records.CHECKPOINT, trainer.state(epochs))
    return trainer, own_folder, lines


def _score(values: recipes.Values, baseline: recipes.Values, up: Mapping[str, Mapping[str, bool]]) -> float:
    if all(baseline[task][name] > 0 for task, metrics in up.items() for name in metrics):
        return delta_p(values, baseline, up)
    return 100 * recipes.gain(values, baseline, up)


def _validation(
    lines: Sequence[records.Json], recipe: recipes.Recipe, up: Mapping[str, Mapping[str, bool]]
) -> recipes.Values:
    """The validation metrics of the model that counts."""
    found: list[recipes.Values] = [line["validation"] for line in lines]
    return found[recipes.best(found, up)] if recipe.select == recipes.BEST_VAL else found[-1]


def _report(on_epoch: Callable[[int], None], before: int, done: int) -> None:
    on_epoch(before + done)
