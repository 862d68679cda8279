from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from isonomy.bench import records, runner, training
from isonomy.bench.data import Metric, Task
from isonomy.bench.recipe import SELECTIONS, Recipe, best, gain
from isonomy.errors import IsonomyError
from tests.bench.tiny import Tiny, cell, load, trainer

UP = {"seg": {"mIoU": True}, "depth": {"AErr": False, "RErr": False}}


def rates(schedule, epochs=10, improved=()):
    recipe = Recipe(epochs, 1.0, schedule)
    return [recipe.rate(epoch, improved[:epoch]) for epoch in range(epochs)]


def test_schedules_of_the_papers():
    assert rates("constant") == [1.0] * 10
    assert rates("linear") == pytest.approx([1 - k / 10 for k in range(10)])
    assert rates("poly") == pytest.approx([(1 - k / 10) ** 0.9 for k in range(10)])
    assert rates("poly:power=2")[5] == 0.25
    halved = rates("step:every=4,factor=0.5")
    assert halved == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert rates("step:first=3,every=2,factor=0.7", 8) == pytest.approx([1, 1, 1, 1, 1, 0.7, 0.7, 0.49])


def test_a_plateau_is_torchs():
    scores = [0.1, 0.5, 0.4, 0.5, 0.45, 0.6, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    improved = [score > max(scores[:i], default=-1) for i, score in enumerate(scores)]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", factor=0.7, patience=2, min_lr=0.4, threshold=0.0
    )
    expected = []
    for score in scores:
        expected.append(optimizer.param_groups[0]["lr"])
        theirs.step(score)
    assert rates("plateau:factor=0.7,patience=2,least=0.4", len(scores), improved) == pytest.approx(expected)


def test_options_of_a_schedule_are_read():
    with pytest.raises(IsonomyError, match="Option every of schedule step is 'often'"):
        Recipe(1, 1.0).changed({"schedule": "step:every=often"})


def test_an_epoch_is_better_by_the_mean_over_tasks_of_relative_changes():
    one = {"seg": {"mIoU": 40.0}, "depth": {"AErr": 1.0, "RErr": 0.5}}
    other = {"seg": {"mIoU": 50.0}, "depth": {"AErr": 2.0, "RErr": 0.5}}
    assert gain(other, one, UP) == pytest.approx((10 / 50 - (1 / 2 + 0) / 2) / 2)
    assert gain(one, other, UP) == pytest.approx(-gain(other, one, UP))
    nothing = {"seg": {"mIoU": 0.0}, "depth": {"AErr": 1.0, "RErr": 0.5}}
    assert gain(one, nothing, UP) == pytest.approx(0.5)
    assert gain(nothing, nothing, UP) == 0


def test_the_best_epoch_is_the_last_one_that_beat_the_best_before():
    epochs = [{"seg": {"mIoU": value}} for value in (10.0, 30.0, 30.0, 20.0)]
    assert best(epochs, {"seg": {"mIoU": True}}) == 1
    assert best(epochs, {"seg": {"mIoU": False}}) == 0
    assert best(epochs[:1], {"seg": {"mIoU": True}}) == 0


@dataclass
class Falling(Tiny):
    """Its metrics are the epoch's: on validation best after the third of five, on the test split after the second."""

    tasks: tuple[Task, ...] = tuple(Task(name, (Metric("score", up=True),)) for name in "abc")
    epoch: ClassVar[int] = 0

    def batches(self, seed, epoch, device, split="train"):
        type(self).epoch = epoch
        return super().batches(seed, epoch, device, split)

    def evaluate(self, model, tasks, split, thorough=True):
        first = float(next(model.parameters()).detach().flatten()[0])
        peak = {"val": 2, "test": 1}[split]
        score = 1 - abs(self.epoch - peak) / 10
        return {task: {"mse": abs(first), "score": score} for task in tasks}


def finished(tmp_path, select, epochs=5):
    problem = Falling()
    one = cell("ew", tmp_path, lambda name: problem, epochs=epochs, select=select)
    runner.run_cell(one, tmp_path, lambda name: problem)
    return records.read_metrics(tmp_path / one.name), records.test_metrics(tmp_path / one.name), tmp_path / one.name


def test_best_on_validation_is_the_model_of_that_epoch(tmp_path):
    lines, result, folder = finished(tmp_path / "best", "best_val")
    assert lines[-1]["selected"]["epochs"] == [3]
    assert [line["improved"] for line in lines] == [True, True, True, False, False]
    # The weights are those that a training of three epochs at the same rates would have ended with.
    kept = records.load_model(folder)
    assert not (folder / records.BEST).exists()
    last = records.load_model(finished(tmp_path / "last", "last")[2])
    first = next(iter(kept))
    assert result["a"]["mse"] == abs(float(kept[first].flatten()[0]))
    assert not torch.equal(kept[first], last[first])


def test_best_on_the_test_split_and_the_mean_of_the_last_ten(tmp_path):
    lines, result, folder = finished(tmp_path / "test", "best_test")
    assert all("watched" in line for line in lines)
    assert ["test" in line for line in lines] == [False] * 4 + [True]
    assert lines[-1]["selected"]["epochs"] == [2]
    assert result["a"]["mse"] == abs(float(next(iter(records.load_model(folder).values())).flatten()[0]))
    lines, result, _ = finished(tmp_path / "mean", "mean_last_10", epochs=12)
    assert ["watched" in line for line in lines] == [False] * 2 + [True] * 9 + [False]
    assert ["test" in line for line in lines] == [False] * 11 + [True]
    assert lines[-1]["selected"]["epochs"] == list(range(3, 13))
    assert result["a"]["score"] == pytest.approx(sum(1 - abs(k - 1) / 10 for k in range(2, 12)) / 10)


@pytest.mark.parametrize("select", SELECTIONS)
def test_every_selection_survives_a_kill(tmp_path, monkeypatch, select):
    one = cell("uw", tmp_path, epochs=12, select=select)
    runner.run_cell(one, tmp_path / "whole", load)
    real, calls = training.train_epoch, []

    def dying(trainer, number):
        calls.append(number)
        if len(calls) in (3, 8):
            raise KeyboardInterrupt
        return real(trainer, number)

    monkeypatch.setattr(training, "train_epoch", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runner.run_cell(one, tmp_path / "killed", load)
    runner.run_cell(one, tmp_path / "killed", load)
    assert calls == [0, 1, 2, 2, 3, 4, 5, 6, 6, *range(7, 12)]
    assert records.test_metrics(tmp_path / "killed" / one.name) == records.test_metrics(tmp_path / "whole" / one.name)


def test_a_finished_run_keeps_its_model_and_not_its_optimisers(tmp_path):
    one = cell("ew", tmp_path)
    runner.run_cell(one, tmp_path, load)
    state = records.load_checkpoint(tmp_path / one.name)
    assert state["optimizers"] == []
    assert state["model"]


def test_clipping_and_weight_decay_reach_the_step():
    one = trainer("ew", clip=1e-3, weight_decay=0.25, optimizer="adamw")
    assert isinstance(one.optimizers[0].optimizer, torch.optim.AdamW)
    assert one.optimizers[0].param_groups[0]["weight_decay"] == 0.25
    one.step(next(one.begin(0)))
    total = torch.stack([p.grad.norm() for p in one.network.parameters()]).norm()
    assert float(total) == pytest.approx(1e-3, rel=1e-4)


def test_scales_change_a_tasks_unit():
    one, other = trainer("ew"), trainer("ew", scales={"b": 10.0})
    batch = next(one.begin(0))
    plain, scaled = one.losses(one.model, batch[0]).losses, other.losses(other.model, batch[0]).losses
    assert scaled["b"] == 10 * plain["b"]
    assert (scaled["a"], scaled["c"]) == (plain["a"], plain["c"])
    torch.testing.assert_close(other.losses_at({}, batch[0])[1].float(), scaled["b"])
