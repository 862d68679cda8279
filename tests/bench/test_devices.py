import os
import signal

import pytest
import torch

from isonomy.bench import attempt, parts, plan, records, runner
from isonomy.bench.data.digits import Digits
from isonomy.errors import IsonomyError
from tests.bench.test_runner import lines
from tests.bench.tiny import Tiny, cell, load, trainer


def close(found, expected):
    """Records that are equal up to the rounding of sums in another order."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            close(found[name], expected[name])
    elif isinstance(expected, list):
        for pair in zip(found, expected, strict=True):
            close(*pair)
    else:
        assert found == (expected if isinstance(expected, (bool, type(None))) else pytest.approx(expected, abs=1e-5))


class Dies(Tiny):
    """The second process is killed in the third epoch, once; by then the first epoch is surely written."""

    def batches(self, seed, epoch, device, split="train"):
        if epoch == 2 and parts.rank() == 1 and not os.path.exists(MARK):
            with open(MARK, "w"):
                os.kill(os.getpid(), signal.SIGKILL)
        return super().batches(seed, epoch, device, split)


MARK = os.environ.get("TINY_MARK", "")


def load_dying(name):
    return Dies()


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_after_a_kill(tmp_path, monkeypatch):
    one, two, parted = tmp_path / "one", tmp_path / "two", tmp_path / "parted"
    runner.run_cell(cell("db_mtl", one), one, load)
    calls = []
    runner.run_cell(cell("db_mtl", two, devices=2), two, load, calls.append)
    assert calls == [0, 1, 2, 3]
    close(lines(two, "db_mtl/0"), lines(one, "db_mtl/0"))
    first, second = (records.load_checkpoint(out / "db_mtl" / "0")["model"] for out in (one, two))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-6)

    monkeypatch.setenv("TINY_MARK", str(tmp_path / "mark"))
    failure = attempt.attempt(cell("db_mtl", parted, devices=2), parted, load_dying)
    assert failure.killed
    assert failure.reason == "process 1 of 2 was ended by SIGKILL, perhaps for want of memory"
    done = records.load_checkpoint(parted / "db_mtl" / "0")["epoch"]
    assert done in (1, 2)
    calls = []
    assert attempt.attempt(cell("db_mtl", parted, devices=2), parted, load_dying, calls.append) is None
    assert calls == [*range(done, 4)]
    assert lines(parted, "db_mtl/0") == lines(two, "db_mtl/0")
    assert not (parted / "db_mtl" / "0" / records.ERROR).exists()


class Refuses(Tiny):
    """The second process does not like its input."""

    def batches(self, seed, epoch, device, split="train"):
        if parts.rank() == 1:
            raise IsonomyError("This file is damaged: fetch it again.")
        return super().batches(seed, epoch, device, split)


def load_refusing(name):
    return Refuses()


@pytest.mark.slow
def test_what_one_process_refuses_is_the_failure_of_the_cell(tmp_path):
    one = cell("ew", tmp_path, devices=2)
    assert attempt.attempt(one, tmp_path, load_refusing) == attempt.Failure(
        "This file is damaged: fetch it again.", True
    )
    assert "in batches" in (tmp_path / one.name / records.ERROR).read_text()


def test_half_the_bits_train_almost_as_well(tmp_path):
    full, half = (cell("uw", tmp_path / name, precision=name) for name in ("32-true", "bf16-mixed"))
    for one in (full, half):
        runner.run_cell(one, tmp_path / one.config["precision"], load)
    first, second = (lines(tmp_path / name, "uw/0")[-1]["test"] for name in ("32-true", "bf16-mixed"))
    assert first != second
    for task, metrics in first.items():
        assert second[task]["mse"] == pytest.approx(metrics["mse"], rel=0.05)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"devices": 0}, "--devices is 0: it must be at least 1"),
        ({"devices": 3, "data": "digits"}, "'digits' has 128 samples, which 3 devices cannot share"),
        ({"devices": 2, "methods": ["ew", "moml"]}, "Method 'moml' trains on one device"),
        ({"devices": 2, "observe": "feature_distance"}, "looks at one device"),
        ({"precision": "half"}, "Unknown precision 'half'"),
        ({"precision": "16-mixed"}, "is for GPUs"),
        ({"executor": "slurm"}, "Unknown executor 'slurm'"),
        ({"address": "auto"}, "add --executor ray"),
        ({"device": "cuda"}, "not available here"),
    ],
)
def test_what_devices_cannot_do_is_refused_at_planning(tmp_path, monkeypatch, flags, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    problem = Digits() if flags.get("data") == "digits" else Tiny()
    with pytest.raises(IsonomyError, match=message):
        plan.resolve({"data": "tiny", **flags}, tmp_path, False, lambda name: problem)


def test_more_gpus_than_there_are_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert plan.resolve({"data": "tiny", "device": "auto", "devices": 2}, tmp_path, False, load).devices == 2
    with pytest.raises(IsonomyError, match="--devices is 4 and there are 2 GPUs"):
        plan.resolve({"data": "tiny", "device": "cuda", "devices": 4}, tmp_path, False, load)


def test_a_cluster_has_gpus_that_the_planning_machine_has_not(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wanted = plan.resolve({"data": "tiny", "device": "cuda", "executor": "ray"}, tmp_path, False, load)
    assert wanted.device == "cuda"


def test_a_batch_is_parted_without_rest(monkeypatch):
    monkeypatch.setattr(parts, "world_size", lambda: 3)
    monkeypatch.setattr(parts, "rank", lambda: 1)
    assert parts.own(torch.arange(9)).tolist() == [3, 4, 5]
    assert parts.turns(list(range(8))) == [1, 4, 7]
    with pytest.raises(IsonomyError, match="A batch of 8 samples cannot be shared by 3 processes"):
        parts.own(torch.arange(8))


def test_the_scale_of_float16_follows_all_optimisers_at_once():
    calls = []

    class Scaler:
        def unscale_(self, optimizer):
            calls.append(("unscale", optimizer))

        def step(self, optimizer):
            calls.append(("step", optimizer))

        def update(self):
            calls.append("update")

    found = trainer("mtadam", clip=1.0)
    found.scaler = Scaler()
    found._update()
    own = [optimizer.optimizer for optimizer in found.optimizers]
    assert len(own) == 2
    assert calls == [*(("unscale", each) for each in own), *(("step", each) for each in own), "update"]
