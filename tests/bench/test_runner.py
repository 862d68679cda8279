import dataclasses
import json
import os

import pytest
import torch

import isonomy
from isonomy.bench import plan, records, runner, sweep
from tests.bench.tiny import Silent, Tiny, load, load_failing

FLAGS = {"data": "tiny", "methods": ["ew", "db_mtl"], "seeds": 1, "epochs": 3}


def cell(method, out, seed=0, **flags):
    wanted = plan.resolve({**FLAGS, **flags, "methods": ["ew" if "single" in method else method]}, out, False, load)
    return next(entry for entry in plan.cells(wanted, load) if entry.name == f"{method}/{seed}")


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


@pytest.mark.parametrize("method", ["ew", "uw", "rlw", "dwa", "db_mtl", "pcgrad", "gradnorm", "imtl"])
@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_cell_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path, method, stop):
    class Killed(BaseException):
        pass

    def kill(done):
        if done == stop:
            raise Killed

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    runner.run_cell(cell(method, whole), whole, load)
    with pytest.raises(Killed):
        runner.run_cell(cell(method, parts), parts, load, kill)
    torch.rand(7)  # whatever else draws in between
    calls = []
    runner.run_cell(cell(method, parts), parts, load, calls.append)
    assert calls == list(range(stop, 4))
    assert lines(whole, f"{method}/0") == lines(parts, f"{method}/0")
    first, second = (records.load_checkpoint(out / method / "0")["model"] for out in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


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
        problem = Tiny(schedule=schedule)
        wanted = plan.resolve(FLAGS, tmp_path, False, lambda name, problem=problem: problem)
        trainer = runner.Trainer(plan.cells(wanted, lambda name, problem=problem: problem)[0], problem)
        rates = []
        for epoch in range(3):
            trainer.epoch(epoch)
            rates.append(trainer.optimizer.param_groups[0]["lr"])
        assert rates == pytest.approx(expected)


def test_methods_that_ask_for_it_hear_the_losses_after_the_step_and_the_end_of_an_epoch(tmp_path, monkeypatch):
    heard = []

    class Needy(isonomy.Balancer):
        def step_end(self, losses):
            heard.append(losses)

        def epoch_end(self, metrics=None):
            heard.append(metrics)

    method = dataclasses.replace(isonomy.catalogue.find("ew"))
    monkeypatch.setattr(type(method), "needs", property(lambda self: ("step_losses",)))
    monkeypatch.setattr(isonomy, "build", lambda name, tasks: Needy(isonomy.loss.EW(), tasks=tasks))
    runner.run_cell(cell("ew", tmp_path, epochs=1), tmp_path, load)
    validation = records.read_metrics(tmp_path / "ew" / "0")[0]["validation"]
    assert heard.pop() == {task: validation[task]["mse"] for task in "abc"}
    assert len(heard) == 4  # 64 samples in batches of 16
    assert all(list(losses) == ["a", "b", "c"] and not losses["a"].requires_grad for losses in heard)


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
