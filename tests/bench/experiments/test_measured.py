"""What sweeps have measured, on runs that are written by hand."""

import pytest

from isonomy.bench import cell, plan, records
from isonomy.bench.delta import Spread
from isonomy.bench.experiments import measured, run
from isonomy.bench.experiments.published import Measure
from tests.bench.experiments.papers import paper
from tests.bench.tiny import load

# Mean squared error and score of each single-task network, seed by seed; the mean of each is 2 and 0.5.
ALONE = {0: (1.0, 0.4), 1: (3.0, 0.6)}


def finished(folder, name, test, weight=1.0):
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    weights = dict.fromkeys(test, weight)
    line = {
        "epoch": 1, "train_losses": dict.fromkeys(test, 1.0), "loss_weights": weights, "weights": weights, "test": test,
    }  # fmt: skip
    records.write_lines(path / records.METRICS, [line])
    (path / records.CHECKPOINT).write_bytes(b"")


def begun(experiment, panel, out):
    wanted = plan.resolve(run.flags(experiment, panel, run.Wishes()), out / panel.name, False, load)
    (out / panel.name).mkdir(parents=True)
    records.write_json(out / panel.name / plan.FILE, wanted.facts)
    return out / panel.name


def values(error, score):
    return {task: {"mse": error, "score": score} for task in "abc"}


@pytest.fixture
def both(tmp_path):
    """Both panels with all runs, those of x10 after another single-task baseline."""
    experiment = paper()
    for panel, factor in zip(experiment.panels, (1.0, 10.0), strict=True):
        folder = begun(experiment, panel, tmp_path)
        for seed, (error, score) in ALONE.items():
            for task in "abc":
                finished(folder, f"{cell.single(task)}/{seed}", {task: {"mse": factor * error, "score": score}})
            for ours in panel.methods.values():
                finished(folder, f"{cell.folder(ours)}/{seed}", values(2.0 + seed, 0.5), weight=2.0 + seed)
    return experiment, tmp_path


def test_metrics_means_and_weights_are_over_seeds(both):
    experiment, out = both
    found = measured.collect(experiment, out, load)
    plain = experiment.panels[0]
    assert found.spread(plain, "ew", Measure("metric", "a", "mse")) == Spread.of([2.0, 3.0])
    assert found.spread(plain, None, Measure("metric", "a", "mse")) == Spread.of([1.0, 3.0])
    assert found.spread(plain, None, Measure("mean")) == Spread.of([1.0, 3.0])
    assert found.spread(plain, "ew", Measure("weight", "b")) == Spread.of(
        [4.0, 9.0]
    )  # loss weight times gradient weight
    assert found.spread(plain, None, Measure("weight", "b")) is None
    assert found.spread(plain, "ew", Measure("seconds")) is None
    records.write_json(out / "plain" / "timing.json", {"ew": {"seconds": 0.5, "ratio": 1.0}})
    assert found.spread(plain, "ew", Measure("seconds")) == Spread.of([0.5])
    assert measured.missing(found) == []


def test_overall_scores_are_relative_to_the_mean_of_the_reference(both):
    experiment, out = both
    found = measured.collect(experiment, out, load)
    plain, scaled = experiment.panels
    # Errors of 2 and 3 against a mean of 2: 0 % and -50 %, of two metrics each; scores of 0.5 are the mean.
    assert found.spread(plain, "ew", Measure("overall")).mean == pytest.approx(-12.5)
    assert found.spread(plain, "ew", Measure("overall")).std == pytest.approx(Spread.of([0.0, -25.0]).std)
    assert found.spread(plain, None, Measure("overall")).mean == pytest.approx(0.0)
    assert found.spread(scaled, "ew", Measure("overall")).mean == pytest.approx(
        -12.5
    )  # of the other panel's networks, not of its own
    assert found.spread(scaled, None, Measure("overall")).mean == pytest.approx(50 * (1 - 10.0))


def test_a_change_is_that_from_the_panel_without_a_suffix(both):
    experiment, out = both
    for seed in (0, 1):
        finished(out / "x10", f"ew/{seed}", values(2.3, 0.5))
    found = measured.collect(experiment, out, load)
    change = found.spread(experiment.panels[1], "ew", Measure("metric", "a", "mse", change=True))
    assert change.mean == pytest.approx(0.2)
    assert (change.std, change.count) == (None, 2)


def test_what_is_not_finished_is_missing(both):
    experiment, out = both
    (out / "plain" / "ew" / "1" / records.CHECKPOINT).unlink()
    (out / "plain" / "single_task-b" / "0" / records.CHECKPOINT).unlink()
    for seed in (0, 1):
        (out / "plain" / "avgnorm" / str(seed) / records.CHECKPOINT).unlink()
    (out / "x10" / plan.FILE).unlink()
    found = measured.collect(experiment, out, load)
    plain, scaled = experiment.panels
    assert found.spread(plain, "ew", Measure("metric", "a", "mse")) == Spread.of([2.0])
    assert found.spread(plain, "avgnorm", Measure("metric", "a", "mse")) is None
    assert measured.runs(found.sweeps["plain"], None) == [{task: {"mse": 3.0, "score": 0.6} for task in "abc"}]
    assert found.spread(scaled, "ew", Measure("metric", "a", "mse")) is None
    assert found.spread(scaled, "ew", Measure("metric", "a", "mse", change=True)) is None
    assert measured.missing(found) == [
        "x10",
        "plain/single_task-b/0",
        "plain/avgnorm/0",
        "plain/ew/1",
        "plain/avgnorm/1",
    ]


def test_without_a_baseline_there_is_no_overall_score(both):
    experiment, out = both
    for seed in (0, 1):
        finished(out / "plain", f"single_task-a/{seed}", {"a": {"mse": 0.0, "score": 0.5}})
    found = measured.collect(experiment, out, load)
    assert found.spread(experiment.panels[0], "ew", Measure("overall")) is None
    assert found.spread(experiment.panels[0], "ew", Measure("metric", "a", "mse")) is not None
