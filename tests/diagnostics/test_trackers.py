"""The lines of docs/diagnosis.md that send a monitor's numbers to trackers, run as they stand there."""

import re
import sys
import types
from pathlib import Path

import pytest

import isonomy
from tests.diagnostics.nets import TASKS, Net

PAGE = Path(__file__).parents[2] / "docs" / "diagnosis.md"
NUMBERS = {
    *(f"{column}/{task}" for column in ("loss", "loss_weight", "weight", "norm", "alignment") for task in TASKS),
    *(f"cosine/{pair}" for pair in ("a/b", "a/c", "b/c")),
    "conflicts",
}


def track(word):
    """Trains with the block of the page that has a word in it."""
    (block,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if word in code]
    assert len([line for line in block.splitlines() if line]) == 3
    net, balancer = Net(), isonomy.build("imtl_g", TASKS)
    names = {"isonomy": isonomy, "balancer": balancer}
    exec(block, names)
    names["monitor"].every = 2
    for _ in range(5):
        net.step(balancer)
    return names, [look["norms"][0] for look in names["monitor"].looks]


def test_tensorboard(tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(tmp_path)
    names, norms = track("SummaryWriter")
    names["writer"].close()
    found = events.EventAccumulator(str(next(tmp_path.rglob("events.*")))).Reload()
    assert set(found.Tags()["scalars"]) == NUMBERS
    scalars = found.Scalars("norm/a")
    assert [scalar.step for scalar in scalars] == [0, 2, 4]
    assert [scalar.value for scalar in scalars] == pytest.approx(norms)


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    try:
        track("mlflow")
        run = mlflow.active_run().info.run_id
    finally:
        mlflow.end_run()
    client = mlflow.MlflowClient()
    assert set(client.get_run(run).data.metrics) == NUMBERS
    history = client.get_metric_history(run, "cosine/a/b")
    assert [metric.step for metric in history] == [0, 2, 4]


def test_weights_and_biases(monkeypatch):
    """Against its documented signature alone, ``log(data, step=None)``: its runs need an account or an own server."""
    heard = []
    stub = types.SimpleNamespace(init=lambda project: None, log=lambda data, step=None: heard.append((step, data)))
    monkeypatch.setitem(sys.modules, "wandb", stub)
    track("wandb")
    assert [step for step, _ in heard] == [0, 2, 4]
    assert set(heard[0][1]) == NUMBERS
