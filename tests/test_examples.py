"""The examples run, and train both of their tasks."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integrations import test_accelerate

EXAMPLES = Path(__file__).parents[1] / "examples"
STEP = re.compile(r"^step (\d+): kind ([\d.]+), size ([\d.]+)", flags=re.MULTILINE)
NUMBER = re.compile(r"^(\S+) = (\S+)$", flags=re.MULTILINE)


@pytest.fixture
def run(capfd, monkeypatch):
    """Runs an example as a script would be; in this process, which has imported the frameworks already."""

    def run(name, change=("", "")):
        monkeypatch.setattr(sys, "argv", [name])
        if change[0]:
            code = (EXAMPLES / f"{name}.py").read_text()
            assert change[0] in code
            exec(compile(code.replace(*change), name, "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capfd.readouterr().out

    yield run
    test_accelerate.reset()


def require_training(output):
    """The loss of both tasks has fallen between the first line that tells it and the last."""
    found = [[float(number) for number in line] for line in STEP.findall(output)]
    (step, *first), (end, *last) = found[0], found[-1]
    assert step < end
    assert last[0] < 0.3 * first[0]
    assert last[1] < 0.6 * first[1]


def test_every_example_is_listed():
    listed = re.findall(r"\((\w+\.py)\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert all(len(path.read_text().splitlines()) <= 80 for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", ["fabric_loop", "accelerate_loop", "hf_trainer"])
def test_trains_and_resumes(name, run):
    output = run(name)
    require_training(output)
    assert [int(step) for step, *_ in STEP.findall(output)] == [16, 320]


@pytest.mark.parametrize("level", ["shared=z", "shared=encoder"])
def test_the_plain_loop_trains_at_both_levels(level, run):
    output = run("plain_loop", ("(losses, shared=z)", f"(losses, {level})"))
    require_training(output)
    report = {name: float(value) for name, value in NUMBER.findall(output)}
    assert report["alignment/kind"] == pytest.approx(report["alignment/size"], abs=1e-3)  # IMTL-G's own property


@pytest.mark.slow
def test_lightning_trains_on_two_processes_and_resumes():
    """By itself, since Lightning starts the script once more for the second process."""
    command = [sys.executable, str(EXAMPLES / "lightning_module.py")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent / "site")}
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=environment).stdout
    require_training(output)
    assert re.findall(r"^step (\d+): .*, (\d) processes$", output, flags=re.MULTILINE) == [("8", "2"), ("160", "2")]


def test_both_tasks_train_in_every_precision(run):
    losses = re.findall(r"^(kind|size): loss (\S+) -> (\S+)$", run("mixed_precision"), flags=re.MULTILINE)
    assert [task for task, *_ in losses] == ["kind", "size"] * 3
    assert all(float(last) < 0.5 * float(first) for _, first, last in losses)


def test_the_monitor_names_who_dominates_and_is_silent_once_it_is_balanced(run):
    plain, balanced = run("monitor").split("imtl:")
    assert "'size'" in plain
    assert 'build("log", tasks)' in plain
    assert "nothing is wrong" in balanced
