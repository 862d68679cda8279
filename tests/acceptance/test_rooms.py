"""Dense prediction as a user runs it."""

import pytest

from isonomy.__main__ import main
from isonomy.bench import records, results, timing

DATA = "rooms:train=16,val=8,test=8,batch_size=8"
METHODS = ("ew", "imtl", "db_mtl", "avgnorm")
METRICS = {"seg": "mIoU", "depth": "RMSE", "normal": "mErr", "edge": "odsF"}


def compare(tmp_path, backbone):
    flags = ["--data", DATA, "--architecture", "mtan", "--backbone", backbone, "--methods", ",".join(METHODS)]
    assert main(["compare", *flags, "--seeds", "1", "--epochs", "2", "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def check(out, capsys):
    names = {path.name for path in out.iterdir()}
    assert {*METHODS, *(f"single_task-{task}" for task in METRICS), results.REPORT, results.SUMMARY} <= names
    for method in METHODS:
        found = records.test_metrics(out / method / "0")
        assert {task: list(values) for task, values in found.items()} == {t: [m] for t, m in METRICS.items()}
        lines = records.read_metrics(out / method / "0")
        assert all(set(line["gradient_norms"]) == set(METRICS) for line in lines)
        assert all(norm > 0 for line in lines for norm in line["gradient_norms"].values())
    page = (out / results.REPORT).read_text()
    assert page.count("<img") == 2 * (1 + 4 + 4 + 4 * len(METHODS))
    printed = capsys.readouterr().out
    assert "Single-task" in printed
    assert "DB-MTL" in printed


def test_mtan_trains_four_tasks_of_rooms_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(timing, "MEASURED", 0)
    monkeypatch.setattr(timing, "WARM_UP", timing.LEAST + 1)
    out = compare(tmp_path, "resnet_mini")
    check(out, capsys)
    # Matched single-task networks are of the same architecture, and the same command again trains nothing.
    config = records.read_json(out / "single_task-seg" / "0" / records.CONFIG)
    assert (config["architecture"], config["backbone"]) == ("mtan", "resnet_mini")
    before = (out / "imtl" / "0" / records.METRICS).stat().st_mtime_ns
    compare(tmp_path, "resnet_mini")
    assert (out / "imtl" / "0" / records.METRICS).stat().st_mtime_ns == before


@pytest.mark.slow
def test_mtan_on_a_resnet18(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path / "cache"))
    check(compare(tmp_path, "resnet18"), capsys)
