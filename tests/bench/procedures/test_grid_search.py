import json
import math
from dataclasses import dataclass

import pytest
import torch

from isonomy.bench import records, runner
from isonomy.bench.cell import single
from isonomy.bench.data import Losses, Metric, Task
from isonomy.bench.procedures import grid_search
from isonomy.bench.procedures.grid_search import HIGHEST, LOWEST, propose
from isonomy.bench.recipe import Recipe
from isonomy.errors import IsonomyError
from tests.bench.tiny import Tiny, cell, load

FLAGS = {"epochs": 1, "trials": 3}


def singles(out, problem=load, **flags):
    for task in "abc":
        runner.run_cell(cell(single(task), out, **flags), out, problem)


def test_the_first_trial_is_plain_summing_and_the_first_weight_stays_1():
    assert propose("abc", [], 0) == [1.0, 1.0, 1.0]
    finished = [([1.0, 1.0, 1.0], 0.0)]
    for _ in range(6):
        weights = propose("abc", finished, 0)
        assert weights[0] == 1
        assert all(LOWEST <= weight <= HIGHEST for weight in weights)
        finished.append((weights, 0.0))
    assert len({tuple(weights) for weights, _ in finished}) == 7


def test_a_proposal_depends_on_the_seed_and_the_trials_before_it_alone():
    finished = [([1.0, 1.0, 1.0], 0.0), ([1.0, 5.0, 0.1], 2.0), ([1.0, 9.0, 3.0], math.nan)]
    first = propose("abc", finished, 3)
    torch.rand(1)
    assert propose("abc", finished, 3) == first
    assert propose("abc", finished, 4) != first


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_best_weights_of_a_score_that_is_known(seed):
    """The score is 0 at weights (1, 20, 0.2). Of 40 random draws one is as close in 1 of 13 cases."""

    def score(weights):
        return -sum((math.log10(w) - math.log10(b)) ** 2 for w, b in zip(weights, (1, 20, 0.2), strict=True))

    finished = []
    for _ in range(40):
        weights = propose("abc", finished, seed)
        finished.append((weights, score(weights)))
    assert max(value for _, value in finished) > -0.01


@dataclass
class Rivals(Tiny):
    """One shared number x pulled to 0 by ``a`` and to 1 by ``b``: it ends at λ_b / (1 + λ_b); the score wants 0.8."""

    tasks: tuple[Task, ...] = (Task("a", (Metric("mse", up=False),)), Task("b", (Metric("mse", up=False),)))
    recipe: Recipe = Recipe(epochs=2, learning_rate=0.05)

    def network(self, architecture, tasks, seed):
        module = torch.nn.Module()
        module.x = torch.nn.Parameter(torch.tensor([0.5]))
        module.forward = lambda: module.x * 1
        module.shared_parameters = module.parameters
        return module

    def batches(self, seed, epoch, device, split="train"):
        return iter(range(200))

    def losses(self, model, batch, tasks):
        x = model()
        return Losses({task: ((x - float(task == "b")) ** 2).sum() for task in tasks}, None)

    def pictures(self, model, tasks):
        return {}

    def evaluate(self, model, tasks, split, thorough=True):
        with torch.no_grad():
            error = float((model() - 0.8).abs().sum()) + 0.1
        return {task: {"mse": error} for task in tasks}


def test_a_search_finds_the_weight_that_validation_wants(tmp_path):
    def rivals(name):
        return Rivals()

    flags = {"epochs": 1, "trials": 15, "load": rivals}
    for task in "ab":
        runner.run_cell(cell(single(task), tmp_path, **flags), tmp_path, rivals)
    one = cell("grid_search", tmp_path, **flags)
    runner.run_cell(one, tmp_path, rivals)
    (line,) = records.read_metrics(tmp_path / one.name)
    trials = line["trials"]
    assert trials[0]["weights"] == [1.0, 1.0]
    best = max(trials, key=lambda trial: trial["delta_p"])
    # At λ_b = 4, x ends at 0.8 and the error is 0.1; plain summing ends at 0.5.
    assert 2.5 < best["weights"][1] < 6.5
    assert line["loss_weights"] == dict(zip("ab", best["weights"], strict=True))
    x = records.load_checkpoint(tmp_path / one.name)["model"]["x"]
    assert line["test"]["a"]["mse"] == pytest.approx(float((x - 0.8).abs()) + 0.1)
    (plain,) = records.read_metrics(tmp_path / one.name / "trials" / "0")
    assert line["test"]["a"]["mse"] < 0.5 * plain["validation"]["a"]["mse"]


def test_the_cell_is_the_best_trial_and_the_others_never_see_the_test_split(tmp_path):
    seen = []

    class Spy(Tiny):
        def evaluate(self, model, tasks, split, thorough=True):
            seen.append(split)
            return super().evaluate(model, tasks, split, thorough)

    singles(tmp_path, **FLAGS)
    one = cell("grid_search", tmp_path, **FLAGS)
    runner.run_cell(one, tmp_path, lambda name: Spy())
    assert seen == ["val"] * 3 + ["test"]
    folder = tmp_path / one.name
    (line,) = records.read_metrics(folder)
    scores = [trial["delta_p"] for trial in line["trials"]]
    best = folder / "trials" / str(scores.index(max(scores)))
    assert records.read_metrics(best)[0]["validation"] == line["validation"]
    assert json.loads((best / records.CONFIG).read_text())["options"]["weights"] == list(line["loss_weights"].values())
    first, second = (records.load_checkpoint(path)["model"] for path in (folder, best))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert records.test_metrics(folder) == line["test"]
    assert records.test_metrics(best) is None


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_search_that_was_killed_trains_no_finished_trial_again_and_ends_the_same(tmp_path, stop):
    class Killed(BaseException):
        pass

    def kill(done):
        if done == stop:
            raise Killed

    flags = {"epochs": 2, "trials": 3}
    steps = []

    class Counting(Tiny):
        def losses(self, model, batch, tasks):
            steps.append(tasks)
            return super().losses(model, batch, tasks)

    found = []
    for out, killed in ((tmp_path / "whole", False), (tmp_path / "parts", True)):
        singles(out, **flags)
        one = cell("grid_search", out, **flags)
        if killed:
            with pytest.raises(Killed):
                runner.run_cell(one, out, load, kill)
        steps.clear()
        runner.run_cell(one, out, lambda name: Counting())
        found.append(untimed(records.read_metrics(out / one.name)))
    assert found[0] == found[1]
    assert len(steps) == (6 - stop) * 4  # epochs that are left, of 4 batches


def untimed(value):
    if isinstance(value, list):
        return [untimed(entry) for entry in value]
    if isinstance(value, dict):
        return {name: untimed(entry) for name, entry in value.items() if name != "seconds"}
    return value


@pytest.mark.parametrize("most", [5.0, 0.5])
def test_a_trial_whose_losses_run_away_is_not_the_best(tmp_path, most):
    class Fragile(Tiny):
        def losses(self, model, batch, tasks):
            losses, feature, _ = super().losses(model, batch, tasks)
            trainer = built[-1] if built else None
            heavy = trainer is not None and float(trainer.weights.max()) > most
            return Losses({task: loss * (float("nan") if heavy else 1) for task, loss in losses.items()}, feature)

    built = []
    flags = {"epochs": 1, "trials": 4}
    singles(tmp_path, **flags)
    one = cell("grid_search", tmp_path, **flags)

    class Watched(grid_search.Trainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            built.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid_search, "Trainer", Watched)
        if most < 1:
            with pytest.raises(IsonomyError, match="not finite"):
                runner.run_cell(one, tmp_path, lambda name: Fragile())
            return
        runner.run_cell(one, tmp_path, lambda name: Fragile())
    (line,) = records.read_metrics(tmp_path / one.name)
    heavy = [max(trial["weights"]) > most for trial in line["trials"]]
    assert [trial["delta_p"] is None for trial in line["trials"]] == heavy
    assert any(heavy)
    assert max(line["loss_weights"].values()) <= most


def test_one_task_is_trained_once(tmp_path):
    flags = {**FLAGS, "tasks": ["b"]}
    runner.run_cell(cell("single_task-b", tmp_path, **flags), tmp_path, load)
    runner.run_cell(cell("grid_search", tmp_path, **flags), tmp_path, load)
    (line,) = records.read_metrics(tmp_path / "grid_search" / "0")
    assert untimed(line["trials"]) == [{"weights": [1.0], "delta_p": 0.0}]


def test_without_single_task_runs_it_says_so(tmp_path):
    with pytest.raises(IsonomyError, match="grid_search/0 learns from single_task-a/0, which has not finished"):
        runner.run_cell(cell("grid_search", tmp_path, **FLAGS), tmp_path, load)
