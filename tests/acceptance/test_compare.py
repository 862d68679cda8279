"""The main job as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from isonomy.__main__ import main
from isonomy.bench import records, results

TOY = ["compare", "--data", "toy", "--methods", "ew,imtl_g", "--seeds", "1", "--epochs", "2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small sweep, run without interruption."""
    out = tmp_path_factory.mktemp("toy")
    assert main([*TOY, "--out", str(out)]) == 0
    return out


def start(*arguments):
    command = [sys.executable, "-m", "isonomy", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_finished_sweep_holds_everything(finished, capsys):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "plan.json", "timing.json", "results.csv", "summary.csv", "report.html",
        "single_task-L1", "single_task-L2", "ew", "imtl_g",
    }  # fmt: skip
    assert sorted(path.name for path in (finished / "ew" / "0").iterdir()) == [
        "checkpoint.pt", "config.json", "metrics.jsonl",
    ]  # fmt: skip
    trace = records.read_metrics(finished / "ew" / "0")[1]["trace"]
    assert len(trace) == 10
    assert len(trace[0]) == 4


def test_killed_and_started_again_it_ends_bit_for_bit_the_same(finished, tmp_path, capsys):
    out = tmp_path / "killed"
    process = start(*TOY, "--out", out, "--jobs", 2)
    done, under_way = out / "single_task-L1" / "0", out / "ew" / "0"

    def time_to_kill():
        return records.test_metrics(done) and (under_way / records.CHECKPOINT).exists()

    wait_for(time_to_kill)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # The workers end with the parent and leave the unfinished cells as they are.
    time.sleep(1)
    checkpoint = (under_way / records.CHECKPOINT).stat().st_mtime_ns
    time.sleep(1)
    assert (under_way / records.CHECKPOINT).stat().st_mtime_ns == checkpoint
    assert not (out / results.RESULTS).exists()
    untouched = {path: path.stat().st_mtime_ns for path in done.iterdir()}
    first = records.read_metrics(under_way)[0]

    assert main(["compare", "--out", str(out), "--resume"]) == 0
    assert (out / results.RESULTS).read_bytes() == (finished / results.RESULTS).read_bytes()
    assert {path: path.stat().st_mtime_ns for path in done.iterdir()} == untouched
    assert "4 of 4 runs to do" not in capsys.readouterr().out
    assert records.read_metrics(under_way)[0] == first  # with its seconds: the first epoch was not run again


def test_the_same_command_again_trains_nothing(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.pt")}
    rows = (finished / results.RESULTS).read_bytes()
    assert main([*TOY, "--out", str(finished)]) == 0
    assert "0 of 4 runs to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.pt")} == before
    assert (finished / results.RESULTS).read_bytes() == rows


@pytest.mark.parametrize("name", ["picture.doc", "picture", "ew", "plan.json/picture.svg"])
def test_an_unusable_picture_is_refused_before_anything_is_written(finished, capsys, name):
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert main(["report", str(finished), "--picture", str(finished / name)]) == 2
    assert capsys.readouterr().err.startswith("Error: --picture")
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_what_is_in_the_way_of_a_run_is_named(tmp_path, capsys):
    (tmp_path / "ew").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "not" / "there")
    assert main([*TOY, "--out", str(tmp_path)]) == 2
    assert "ew is in the way of a run's folder" in capsys.readouterr().err
    assert main([*TOY, "--out", str(tmp_path / "nowhere")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "ew")]) == 2
    assert "is a file: name the folder of a sweep" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"ew", "nowhere"}


def test_report_rebuilds_the_tables_and_the_page(finished, tmp_path, capsys):
    before = {name: (finished / name).read_bytes() for name in ("results.csv", "summary.csv", "report.html")}
    for name in before:
        (finished / name).unlink()
    assert main(["report", str(finished), "--picture", str(tmp_path / "new" / "compare.svg")]) == 0
    assert {name: (finished / name).read_bytes() for name in before} == before
    assert (tmp_path / "new" / "compare.svg").read_text().lstrip().startswith("<?xml")


def test_a_failed_run_is_named_and_the_others_go_on(tmp_path, capsys):
    # The losses of toy become negative, which a logarithm cannot take.
    command = [
        "compare",
        "--data",
        "toy",
        "--methods",
        "log,ew",
        "--seeds",
        "2",
        "--epochs",
        "1",
        "--out",
        str(tmp_path),
    ]
    assert main(command) == 2
    captured = capsys.readouterr()
    assert "failed:" in captured.out
    assert "Log needs a loss of 0 or more" in captured.out
    assert "Traceback" not in captured.out + captured.err
    failed = [path.parent for path in tmp_path.rglob(records.ERROR)]
    assert failed
    assert all(folder.parent.name == "log" for folder in failed)
    assert "Traceback" in (failed[0] / records.ERROR).read_text()
    assert [line.split(",")[0] for line in (tmp_path / "summary.csv").read_text().splitlines()] == ["method", "ew"]


def test_a_run_that_crashes_has_another_exit_code_than_bad_input(tmp_path, monkeypatch, capsys):
    from isonomy.bench.data import toy

    def crash(self, model):
        raise ZeroDivisionError("out of luck")

    monkeypatch.setattr(toy.Toy, "trace", crash)
    assert main([*TOY, "--out", str(tmp_path)]) == 1
    assert "out of luck" in capsys.readouterr().out


BAD = [
    (["compare", "--methods", "db_mlt"], "Unknown method 'db_mlt': did you mean 'db_mtl'?"),
    (["compare", "--methods", "ew,ew"], "Method 'ew' is given twice"),
    (["compare", "--data", "digit"], "Unknown data set 'digit': did you mean 'digits'?"),
    (["compare", "--tasks", "left,rihgt"], "Unknown task of digits 'rihgt': did you mean 'right'?"),
    (["compare", "--architecture", "hsp"], "Unknown architecture 'hsp': did you mean 'hps'?"),
    (["compare", "--level", "featurs"], "Unknown level 'featurs': did you mean 'features'?"),
    (["compare", "--data", "toy", "--level", "features"], "'toy' with architecture 'point' has no level 'features'"),
    (["compare", "--methods", "db_mtl", "--level", "features"], "Method 'db_mtl' cannot measure gradients"),
    (["compare", "--seeds", "0"], "--seeds is 0"),
    (["compare", "--seeds", "three"], "'three' is not a valid integer"),
    (["compare", "--epochs", "0"], "--epochs is 0"),
    (["compare", "--jobs", "0"], "--jobs is 0"),
    (["compare", "--methods", "grid_search", "--trials", "0"], "--trials is 0"),
    (["compare", "--trials", "3"], "--trials is for grid_search: add it to --methods"),
    (["compare", "--data", "toy", "--methods", "url"], "Method 'url' distils the one feature that all heads read"),
    (["compare", "--data", "toy", "--methods", "dtp"], "Method 'dtp' needs a validation score from 0 to 1"),
    (["compare", "--resume"], "There is no sweep to resume"),
    (["compare", "--sedes", "3"], "No such option"),
    (["report", "nowhere"], "There is no sweep in nowhere"),
    (["list", "method"], "Unknown list 'method': did you mean 'methods'?"),
    (["compair"], "No such command 'compair'"),
    (["compare", "--tasks", ""], "--tasks is empty: name at least one of left, right, sum"),
    (["compare", "--data", "toy", "--architecture", "nope"], "Unknown architecture 'nope': choose from point"),
    (["compare", "--out", ""], "--out is empty"),
    (["compare", "--out", "a" * 300], "cannot be used (File name too long)"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_sentence_and_changes_nothing(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: ")
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("plan.json", "plan.json is damaged"),
        ("timing.json", "timing.json is damaged"),
        ("ew/0/config.json", "config.json is damaged"),
        ("ew/0/metrics.jsonl", "metrics.jsonl is damaged (line 1"),
        ("imtl_g/0/checkpoint.pt", "checkpoint.pt is damaged"),
    ],
)
def test_a_damaged_file_is_found_before_anything_starts(finished, capsys, damage, sentence):
    path = finished / damage
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2][1:])
    try:
        before = snapshot(finished)
        assert main([*TOY, "--seeds", "2", "--out", str(finished)]) == 2
        captured = capsys.readouterr()
        assert sentence in captured.err
        assert "delete" in captured.err
        assert captured.err.count("\n") == 1
        assert snapshot(finished) == before
    finally:
        path.write_bytes(content)


def test_another_sweep_in_the_same_folder_is_refused(finished, capsys):
    before = snapshot(finished)
    assert main([*TOY, "--epochs", "9", "--out", str(finished)]) == 2
    error = capsys.readouterr().err
    assert f"Error: {finished} was made with epochs = 2, this sweep has 9: choose another --out" in error
    assert snapshot(finished) == before


def test_out_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert main([*TOY, "--out", str(tmp_path / "out")]) == 2
    assert "is not a folder; name another one" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("what", ["methods", "data", "architectures"])
def test_lists(capsys, what):
    assert main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["list", what, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [line.split()[0] for line in lines] == [entry["name"] for entry in entries]
    assert all(entry["summary"] for entry in entries)


def test_the_list_of_methods_says_what_each_takes(capsys):
    assert main(["list", "methods", "--json"]) == 0
    methods = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert methods["db_mtl"]["options"]["beta"] == 0.9
    assert methods["db_mtl"]["levels"] == ["parameters"]
    assert methods["fixed"]["options"] == {"weights": None}


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("isonomy ")
    assert main(["--help"]) == 0
    assert "compare" in capsys.readouterr().out
    assert main([]) == 2


@pytest.mark.parametrize("missing", ["lightning_fabric", "sklearn", "matplotlib"])
def test_without_the_extra_it_says_what_to_install(missing):
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from isonomy.__main__ import main\n"
        "sys.exit(main(['compare', '--data', 'toy']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == f"The command line needs {missing}: pip install 'isonomy[bench]'\n"
