import json

import pytest

from isonomy.bench import cli
from isonomy.bench.experiments import catalogue, run, smoke
from tests.bench.experiments.papers import paper, printed
from tests.bench.tiny import load


def test_experiments_are_listed(capsys):
    assert cli.run(["list", "experiments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(catalogue.names())
    assert next(line for line in lines if line.startswith("dbmtl/table1 ")).endswith("220 published numbers; 72 runs")
    assert cli.run(["list", "experiments", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)[0]
    assert {"name", "kind", "what", "published", "panels", "cells", "summary"} == set(entry)


def test_flags_reach_the_run(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(
        run,
        "run",
        lambda *arguments: seen.update(zip(("name", "out", "jobs", "console", "wishes"), arguments, strict=True)) or [],
    )
    flags = [
        "--methods",
        "EW,db_mtl:beta=0.1,decay=0",
        "--seeds",
        "2",
        "--epochs",
        "3",
        "--weights-root",
        "none",
        "--jobs",
        "2",
    ]
    assert cli.run(["run", "dbmtl/table3", "--out", str(tmp_path), "--device", "cpu", *flags]) == 0
    assert (seen["name"], seen["out"], seen["jobs"]) == ("dbmtl/table3", tmp_path, 2)
    assert seen["wishes"] == run.Wishes(["EW", "db_mtl:beta=0.1,decay=0"], 2, 3, "none", {"device": "cpu"})


@pytest.mark.parametrize(("flag", "size"), [(["--smoke"], "small"), (["--smoke", "full"], "full")])
def test_smoke_says_whether_anything_failed(monkeypatch, flag, size):
    seen = []
    monkeypatch.setattr(smoke, "smoke", lambda found, *rest: seen.append((found[0].name, rest[-1])) or len(seen) - 1)
    assert cli.run(["run", "imtl/fig1", *flag]) == 0
    assert cli.run(["run", "imtl/fig1", *flag]) == 1
    assert seen == [("imtl/fig1", size)] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dbmtl/table33"], "Unknown experiment 'dbmtl/table33': did you mean"),
        (["dbmtl/table3"], "--weights-root none"),
        (["dbmtl/table3", "--seeds", "0"], "--seeds is 0: it must be at least 1"),
        (["dbmtl/table3", "--jobs", "0"], "--jobs is 0"),
        (["dbmtl/table3", "--out", ""], "--out is empty"),
        (["dbmtl/table3", "--smoke", "tiny"], "'tiny' is not one of"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, capsys):
    assert cli.run(["run", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_drawing_has_nothing_to_train(capsys, tmp_path):
    assert cli.run(["run", "revisit/table8", "--out", str(tmp_path)]) == 0
    assert "there is nothing to run" in capsys.readouterr().out


def test_failed_runs_are_an_exit_code(monkeypatch, tmp_path):
    printed(monkeypatch)
    monkeypatch.setattr(catalogue, "find", lambda pattern: [paper()])
    whole = run.run
    monkeypatch.setattr(run, "run", lambda *arguments: whole(*arguments, load=broken))
    assert cli.run(["run", "paper/table1", "--out", str(tmp_path), "--seeds", "1", "--methods", "EW"]) == 1


def broken(name):
    problem = load(name)
    problem.fail = "b"
    return problem
