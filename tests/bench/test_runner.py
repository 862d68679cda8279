import inspect
import json
import os
from dataclasses import replace

import pytest
import torch

import isonomy
from isonomy.bench import choice, plan, records, runner, sweep, training
from isonomy.bench.cell import AFTER_SINGLE, single
from isonomy.bench.trainer import Trainer
from tests.bench.tiny import Silent, Tiny, cell, load, load_failing, trainer

FLAGS = {"data": "tiny", "methods": ["ew", "db_mtl"], "seeds": 1, "epochs": 3}


def lines(out, name):
    """What is recorded of a cell, without the clock."""
    return [
        {key: value for key, value in entry.items() if key != "seconds"} for entry in records.read_metrics(out / name)
    ]


def test_a_cell_leaves_its_config_metrics_and_checkpoint(tmp_path):
    one = cell("db_mtl", tmp_path)
    runner.run_cell(one, tmp_path, load)
    folder = tmp_path / "db_mtl" / "0"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.pt", "config.json", "metrics.jsonl"]
    assert json.loads((folder / "config.json").read_text()) == one.config
    entries = records.read_metrics(folder)
    assert [entry["epoch"] for entry in entries] == [1, 2, 3]
    for entry in entries:
        for column in ("train_losses", "validation", "loss_weights", "weights", "gradient_norms"):
            assert list(entry[column]) == ["a", "b", "c"], column
        assert len(entry["cosines"]) == 3
        assert entry["cosines"][0][0] == pytest.approx(1)
        assert entry["seconds"] > 0
    assert ["test" in entry for entry in entries] == [False, False, True]
    assert records.load_checkpoint(folder)["epoch"] == 3


RESUMED = [
    "ew", "uw", "rlw", "dwa", "db_mtl", "pcgrad", "gradnorm", "imtl", "famo", "dtp", "igb_v2", "modo", "sdmgrad",
    "mtadam", "rotograd", "auto_lambda", "moml", "url",
]  # fmt: skip


@pytest.mark.parametrize("method", RESUMED)
@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_cell_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path, method, stop):
    class Killed(BaseException):
        pass

    def kill(done):
        if done == stop:
            raise Killed

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for out in (whole, parts):
        for task in "abc" if method == "url" else "":
            runner.run_cell(cell(single(task), out), out, load)
    runner.run_cell(cell(method, whole), whole, load)
    with pytest.raises(Killed):
        runner.run_cell(cell(method, parts), parts, load, kill)
    torch.rand(7)  # whatever else draws in between
    calls = []
    runner.run_cell(cell(method, parts), parts, load, calls.append)
    assert calls == list(range(stop, 4))
    assert lines(whole, f"{method}/0") == lines(parts, f"{method}/0")
    first, second = (records.load_checkpoint(out / method / "0") for out in (whole, parts))
    same(first, second)


@pytest.mark.parametrize("method", [m.name for m in isonomy.methods()])
def test_every_method_trains(tmp_path, method):
    for task in "abc" if method in AFTER_SINGLE else "":
        runner.run_cell(cell(single(task), tmp_path, epochs=1), tmp_path, load)
    one = cell(method, tmp_path, epochs=1, trials=2 if method == choice.SEARCH else None)
    before = Trainer(replace(one, config={**one.config, "procedure": None}), Tiny()).network.state_dict()
    runner.run_cell(one, tmp_path, load)
    after = records.load_checkpoint(tmp_path / one.name)["model"]
    assert records.test_metrics(tmp_path / one.name).keys() == {"a", "b", "c"}
    assert all(value.isfinite().all() and not torch.equal(value, before[name]) for name, value in after.items())


def test_the_catalogue_gives_every_procedure_its_options():
    for method in isonomy.methods():
        if method.kind == "procedure" and method.name != choice.SEARCH:
            parameters = inspect.signature(type(trainer(method.name).procedure)).parameters
            assert set(parameters) == {"trainer", *method.options}
    assert set(isonomy.catalogue.find(choice.SEARCH).options) == {"trials"}


def same(first, second):
    """Checkpoints that are equal to the last bit."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            same(first[name], second[name])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            same(*pair)
    elif isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
    else:
        assert first == second


def test_metrics_ahead_of_the_checkpoint_are_dropped_on_resuming(tmp_path):
    one = cell("ew", tmp_path)
    runner.run_cell(one, tmp_path, load)
    whole = lines(tmp_path, "ew/0")
    folder = tmp_path / "ew" / "0"
    entries = records.read_metrics(folder)
    state = records.load_checkpoint(folder)
    (folder / records.CHECKPOINT).unlink()
    (folder / records.METRICS).write_text("")

    def kill(done):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run_cell(one, tmp_path, load, kill)
    # As if the kill had come between the second epoch's metrics and its checkpoint.
    records.write_lines(folder / records.METRICS, [*records.read_metrics(folder), {**entries[1], "train_losses": {}}])
    runner.run_cell(one, tmp_path, load)
    assert lines(tmp_path, "ew/0") == whole
    assert state["epoch"] == 3


def test_all_methods_of_a_seed_start_alike_and_see_the_same_batches(tmp_path):
    seen = {}

    class Spy(Tiny):
        def losses(self, model, batch, tasks):
            seen.setdefault(current, []).append(batch[0])
            weights = {name: value.clone() for name, value in model.state_dict().items()}
            starts.setdefault(current, weights)
            return super().losses(model, batch, tasks)

    starts = {}
    for current in ("ew", "uw", "single_task-b"):
        runner.run_cell(cell(current, tmp_path), tmp_path, lambda name: Spy())
    for other in ("uw", "single_task-b"):
        assert all(torch.equal(first, second) for first, second in zip(seen["ew"], seen[other], strict=True))
        for name, value in starts[other].items():
            assert torch.equal(value, starts["ew"][name]), name


def test_a_linear_schedule_falls_towards_zero_and_a_constant_one_does_not(tmp_path):
    for schedule, expected in (("linear", [1e-2, 1e-2 * 2 / 3, 1e-2 / 3]), ("constant", [1e-2] * 3)):
        problem = Tiny()
        wanted = plan.resolve({**FLAGS, "schedule": schedule}, tmp_path, False, lambda name, problem=problem: problem)
        trainer = Trainer(plan.cells(wanted, lambda name, problem=problem: problem)[0], problem)
        rates = []
        for epoch in range(3):
            training.train_epoch(trainer, epoch)
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        assert rates == pytest.approx(expected)


def test_the_end_of_an_epoch_brings_scores_and_the_next_learning_rate(tmp_path, monkeypatch):
    heard = []

    class Needy(isonomy.Balancer):
        def epoch_end(self, metrics=None, learning_rate=None):
            heard.append((metrics, learning_rate))

    monkeypatch.setattr(isonomy, "build", lambda name, tasks: Needy(isonomy.loss.EW(), tasks=tasks))
    runner.run_cell(cell("ew", tmp_path, epochs=2), tmp_path, load)
    entries = records.read_metrics(tmp_path / "ew" / "0")
    scores = [{task: entry["validation"][task]["score"] for task in "abc"} for entry in entries]
    assert heard == [(scores[0], 5e-3), (scores[1], 0.0)]


def test_threads_are_one_inside_and_as_before_outside():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with runner.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_failed_cell_is_reported_and_the_others_go_on(tmp_path):
    cells = plan.cells(plan.resolve(FLAGS, tmp_path, False, load), load)
    listener = Silent()
    failures = sweep.run(cells, tmp_path, 1, listener, load_failing)
    assert [failure.refused for failure in failures] == [False] * 3
    over = dict(event for event in listener.events if not event[1].startswith("epoch"))
    assert over.pop("single_task-a/0") == over.pop("single_task-c/0") == "finished"
    assert set(over) == {"single_task-b/0", "ew/0", "db_mtl/0"}
    assert set(over.values()) == {"failed: no network today second line"}
    assert "RuntimeError: no network today" in (tmp_path / "ew" / "0" / records.ERROR).read_text()
    assert plan.survey(tmp_path, cells) == [entry for entry in cells if "b" in entry.tasks]

    assert sweep.run(plan.survey(tmp_path, cells), tmp_path, 1, listener, load) == []
    assert not (tmp_path / "ew" / "0" / records.ERROR).exists()


def test_what_learns_from_single_task_runs_comes_after_them_and_fails_with_them(tmp_path):
    cells = plan.cells(
        plan.resolve({**FLAGS, "methods": ["url", "grid_search", "ew"], "trials": 2}, tmp_path, False, load), load
    )
    late_first = sorted(cells, key=lambda entry: not entry.waits)
    assert [entry.method for entry in late_first[:2]] == ["url", "grid_search"]
    listener = Silent()
    assert sweep.run(late_first, tmp_path / "whole", 1, listener, load) == []
    finished = [name for name, event in listener.events if event == "finished"]
    assert set(finished[-2:]) == {"url/0", "grid_search/0"}
    assert ("grid_search/0", "epoch 6") in listener.events

    listener = Silent()
    failures = sweep.run(late_first, tmp_path / "broken", 1, listener, load_failing)
    assert len(failures) == 4  # what has the task b
    over = dict(event for event in listener.events if not event[1].startswith("epoch"))
    assert over["grid_search/0"].startswith("failed: grid_search/0 learns from single_task-b/0, which has not finished")


def test_processes_change_no_number_and_one_that_dies_takes_no_other_with_it(tmp_path):
    cells = plan.cells(plan.resolve({**FLAGS, "epochs": 1}, tmp_path, False, load), load)
    listener = Silent()
    assert len(sweep.run(cells, tmp_path / "two", 2, listener, load_deadly)) == 2
    over = dict(event for event in listener.events if not event[1].startswith("epoch"))
    assert over.pop("single_task-b/0").startswith("failed: its process was killed")
    assert over.pop("single_task-c/0") == "failed: out of luck"
    assert over == {"single_task-a/0": "finished", "ew/0": "finished", "db_mtl/0": "finished"}
    assert {("ew/0", "epoch 0"), ("ew/0", "epoch 1")} <= set(listener.events)

    assert sweep.run(cells, tmp_path / "one", 1, Silent(), load) == []
    for name in over:
        assert lines(tmp_path / "one", name) == lines(tmp_path / "two", name)


class Deadly(Tiny):
    def losses(self, model, batch, tasks):
        if list(tasks) == ["b"]:
            os._exit(9)
        if list(tasks) == ["c"]:
            raise RuntimeError("out of luck")
        return super().losses(model, batch, tasks)


def load_deadly(name):
    return Deadly()
