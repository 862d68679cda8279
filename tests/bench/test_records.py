import os

import pytest
import torch

from isonomy.bench import records
from isonomy.errors import IsonomyError


def state(epoch=1):
    parts = {"model": {"w": torch.arange(500.0)}, "balancer": {}, "procedure": {}, "precision": {}}
    return {"epoch": epoch, "optimizers": [], **parts}


def line(epoch, **more):
    return {"epoch": epoch, "train_losses": {"a": 0.1 + 0.2}, **more}


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    records.write_json(path, {"a": 1})

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        records.write_json(path, {"a": 2})
    assert records.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_reader_never_sees_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    records.write_lines(path, [line(1)])
    before = path.read_text()
    replace = os.replace

    def look(source, target):
        assert path.read_text() == before
        assert os.path.dirname(source) == str(tmp_path)
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    records.write_lines(path, [line(1), line(2)])
    assert [entry["epoch"] for entry in records.read_metrics(tmp_path)] == [1, 2]


def test_files_have_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    records.write_text(tmp_path / "written", "x")
    assert (tmp_path / "written").stat().st_mode == plain.stat().st_mode


def test_floats_come_back_exactly(tmp_path):
    records.write_lines(tmp_path / records.METRICS, [line(1)])
    assert records.read_metrics(tmp_path)[0]["train_losses"]["a"] == 0.1 + 0.2


def test_checkpoints_come_back(tmp_path):
    assert records.load_checkpoint(tmp_path) is None
    records.write_lines(tmp_path / records.METRICS, [line(1), line(2)])
    records.save_checkpoint(tmp_path / records.CHECKPOINT, state(2))
    loaded = records.load_checkpoint(tmp_path)
    assert loaded["epoch"] == 2
    assert torch.equal(loaded["model"]["w"], torch.arange(500.0))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-600])


def flip(path):
    content = bytearray(path.read_bytes())
    at = content.find(torch.arange(500.0).numpy().tobytes()) + 100
    content[at] ^= 0xFF
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip, empty])
def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path, damage):
    records.write_lines(tmp_path / records.METRICS, [line(1)])
    path = tmp_path / records.CHECKPOINT
    records.save_checkpoint(path, state())
    damage(path)
    with pytest.raises(IsonomyError, match=rf"checkpoint\.pt is damaged .*delete the folder {tmp_path} "):
        records.load_checkpoint(tmp_path)


def test_a_checkpoint_that_holds_something_else_is_refused(tmp_path):
    torch.save({"weights": 1}, tmp_path / records.CHECKPOINT)
    with pytest.raises(IsonomyError, match="does not hold balancer, epoch, model, optimizers, precision, procedure"):
        records.load_checkpoint(tmp_path)


def test_a_checkpoint_ahead_of_its_metrics_is_refused(tmp_path):
    records.write_lines(tmp_path / records.METRICS, [line(1)])
    records.save_checkpoint(tmp_path / records.CHECKPOINT, state(2))
    with pytest.raises(IsonomyError, match="1 epochs, the checkpoint has 2"):
        records.load_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"epoch": 2, "train_losses": {}}', '{"epoch": 1}'])
def test_damaged_metrics_are_named_with_the_line(tmp_path, text):
    (tmp_path / records.METRICS).write_text(text + "\n")
    with pytest.raises(IsonomyError, match="line 1 is not the record of epoch 1"):
        records.read_metrics(tmp_path)


def test_a_cell_is_finished_when_its_last_line_has_test_metrics(tmp_path):
    assert records.test_metrics(tmp_path) is None
    records.write_lines(tmp_path / records.METRICS, [line(1)])
    records.save_checkpoint(tmp_path / records.CHECKPOINT, state(1))
    assert records.test_metrics(tmp_path) is None
    records.write_lines(tmp_path / records.METRICS, [line(1, test={"a": {"m": 1.0}})])
    assert records.test_metrics(tmp_path) == {"a": {"m": 1.0}}


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_damaged_json_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(IsonomyError, match=r"config\.json is damaged"):
        records.read_json(tmp_path / "config.json")
