import os
import signal
from pathlib import Path

import pytest

from isonomy.bench import cluster, plan, records, sweep
from isonomy.errors import IsonomyError
from tests.bench.test_runner import lines, same
from tests.bench.tiny import Silent, Tiny, load

FLAGS = {"data": "tiny", "methods": ["ew", "db_mtl"], "tasks": ["a", "c"], "seeds": 1, "epochs": 3}


class Mortal(Tiny):
    """Workers are killed: those of two tasks in the second epoch and in the third, once each; those of ``c`` always."""

    def batches(self, seed, epoch, device, split="train"):
        self.epoch = epoch
        return super().batches(seed, epoch, device, split)

    def losses(self, model, batch, tasks):
        kills = Path(os.environ["ISONOMY_CACHE"])
        mark = kills / (f"c-{os.getpid()}" if list(tasks) == ["c"] else f"both-{self.epoch}")
        if self.epoch > 0 and list(tasks) != ["a"] and not mark.exists():
            mark.touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(model, batch, tasks)


def load_mortal(name):
    return Mortal()


@pytest.mark.slow
def test_killed_workers_change_no_number_and_one_that_always_dies_stops_no_other(tmp_path, monkeypatch, capfd):
    whole, parted, kills = (tmp_path / name for name in ("whole", "parted", "kills"))
    for folder in (parted, kills):
        folder.mkdir()
    monkeypatch.setenv("ISONOMY_CACHE", str(kills))
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # other programs' memory is none of the test's
    monkeypatch.setattr(cluster, "TRIES", 2)
    cells = plan.cells(plan.resolve(FLAGS, tmp_path, False, load), load)
    assert sweep.run(cells, whole, 1, Silent(), load) == []

    listener = Silent()
    with cluster.started(None, parted, 2, cells) as execute:
        (token,) = (path for path in parted.iterdir() if path.is_file())
        failures = sweep.run(cells, parted, 2, listener, load_mortal, execute)
        cluster._require({"num_cpus": 2, "num_gpus": 0}, token)
        with pytest.raises(
            IsonomyError, match="A run needs 3 CPUs of one node, and no node of the cluster has more than 2"
        ):
            cluster._require({"num_cpus": 3, "num_gpus": 0}, token)
        with pytest.raises(IsonomyError, match=r"Node .* of the cluster does not see .*elsewhere: choose an --out on"):
            cluster._require({"num_cpus": 1, "num_gpus": 0}, tmp_path / "elsewhere" / token.name)
    assert not token.exists()

    assert len(list(kills.glob("both-*"))) == len(list(kills.glob("c-*"))) == 2
    reason = "its process was killed, perhaps for want of memory, 2 times without an epoch in between; try fewer --jobs"
    assert failures == [sweep.Failure(reason)]
    assert (parted / "single_task-c" / "0" / records.ERROR).read_text() == reason + "\n"
    over = dict(event for event in listener.events if not event[1].startswith("epoch"))
    assert over.pop("single_task-c/0") == f"failed: {reason}"
    assert set(over.values()) == {"finished"}
    for name in ("single_task-a/0", "ew/0", "db_mtl/0"):
        assert (name, "epoch 3") in listener.events  # the ones before may go by between two looks
        assert lines(parted, name) == lines(whole, name)
        same(*(records.load_checkpoint(out / name) for out in (parted, whole)))
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_does_not_see_the_folder_trains_nothing(tmp_path):
    (cell, *_) = plan.cells(plan.resolve(FLAGS, tmp_path, False, load), load)
    failure = cluster._attempt(cell, tmp_path, load, {}, tmp_path / "token")
    assert failure.refused
    assert "choose an --out on storage that all nodes share" in failure.reason
    assert list(tmp_path.iterdir()) == []


def test_the_epochs_of_a_search_are_those_of_all_its_trials(tmp_path):
    assert cluster._epochs(tmp_path) is None
    records.write_json(tmp_path / records.CONFIG, {})
    assert cluster._epochs(tmp_path) == 0
    for trial, epochs in enumerate((3, 2)):
        (tmp_path / "trials" / str(trial)).mkdir(parents=True)
        records.write_lines(tmp_path / "trials" / str(trial) / records.METRICS, [{"epoch": i} for i in range(epochs)])
    assert cluster._epochs(tmp_path) == 5
    records.write_lines(tmp_path / records.METRICS, [{"epoch": i} for i in range(4)])
    assert cluster._epochs(tmp_path) == 4


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    cells = plan.cells(plan.resolve(FLAGS, tmp_path, False, load), load)
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with (
        pytest.raises(IsonomyError, match=r"--executor ray needs Ray: pip install 'isonomy\[cluster\]'"),
        cluster.started(None, tmp_path, 1, cells),
    ):
        pass


def test_an_address_where_nobody_is_is_named(tmp_path, monkeypatch):
    cells = plan.cells(plan.resolve(FLAGS, tmp_path, False, load), load)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with (
        pytest.raises(IsonomyError, match="There is no Ray cluster at --address auto"),
        cluster.started("auto", tmp_path, 1, cells),
    ):
        pass
