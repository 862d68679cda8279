import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import DSG
from tests.fixtures import M, close, set_up, tensor, value_of

METRICS = [50, 60, 60.05, 60.05, 60.05, 60.05, 60.05, 59.8, 59.6, 61, 61, 61]
STOPPED = [0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1]


def flags(*series, **options):
    """Who is stopped after each epoch, shape (epochs, tasks), for a series of metrics a task."""
    stage = set_up(DSG(**options), len(series))
    found = []
    for metrics in zip(*series, strict=True):
        stage.epoch_end(tensor(metrics), None)
        found.append(stage.stopped.clone())
    return torch.stack(found)


def controller(series, sign=1, patience=1, threshold=0.001, restart=0.005):
    """One task's controller, written step by step."""
    best, bad, rest, stopped, found = None, 0, 0, False, []
    for m in series:
        if best is None or sign * (m - best) > threshold * (best if best > 0 else 1):
            best, bad = m, 0
        else:
            bad += 1
        if rest > 0:
            rest, bad = rest - 1, 0
        if bad > patience:
            stopped, rest, bad = True, 1, 0
        elif stopped and sign * (m - best) < -restart * (best if best > 0 else 1):
            stopped, rest, bad = False, 1, 0
        found.append(stopped)
    return found


def test_known_flags():
    assert flags(METRICS)[:, 0].tolist() == [bool(flag) for flag in STOPPED]


def test_smaller_is_better():
    mirrored = [1e3 - 10 * m for m in METRICS]
    kept = flags(mirrored, mode="min")[:, 0].tolist()
    assert kept == controller(mirrored, sign=-1)
    assert any(kept)
    both = flags(METRICS, mirrored, mode=["max", "min"])
    assert both[:, 0].tolist() == [bool(flag) for flag in STOPPED]
    assert both[:, 1].tolist() == kept


series = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0, 1.0005, 1.01, 1.004, 2.0]), min_size=1, max_size=20)


@given(series, st.sampled_from([1, -1]), st.integers(0, 3), st.sampled_from([(0.001, 0.005), (0.0, 0.0), (0.2, 0.1)]))
def test_against_the_controller_step_by_step(metrics, sign, patience, thresholds):
    options = {"patience": patience, "threshold": thresholds[0], "restart": thresholds[1]}
    found = flags(metrics, mode="max" if sign == 1 else "min", **options)
    assert found[:, 0].tolist() == controller(metrics, sign, **options)


def test_a_stopped_task_trains_at_every_fourth_step():
    stage = set_up(DSG(), 2)
    stage.stopped[1] = True
    masks = []
    for _ in range(9):
        masks.append(value_of(stage, [1, 1])[1])
        stage.update(tensor([1, 1]), torch.arange(2))
    close(torch.stack(masks), [[1, float(k in (0, 4, 8))] for k in range(9)], 0)


def test_on_a_model():
    balancer = isonomy.build("dsg", tasks=3, interval=2, patience=0)
    for _ in range(2):
        balancer.epoch_end({"0": 0.5, "1": 0.5})
    for expected in ([2, -2, 6], [0, 0, 6], [2, -2, 6]):
        m = M()
        m.step(balancer)
        close(m.heads, expected, 0)
    balancer.epoch_end({"0": 0.4, "2": 0.1})
    m = M()
    m.step(balancer)
    close(m.heads, [2, 0, 6], 0)
    close(m.theta.grad, [4, 2])


def test_a_learning_rate_that_falls_slowly_starts_anew_where_it_has_halved():
    stage = set_up(DSG(), 1)
    began = []
    for rate in (0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02):
        stage.epoch_end(tensor([50]), rate)
        began.append(bool(stage.best.isnan()))
    assert began == [False, False, False, True, False, False, True]


def test_epochs_without_a_metric_do_not_count():
    nan = float("nan")
    assert flags([50, nan, nan, nan, 50, 50])[:, 0].tolist() == [False] * 5 + [True]


def test_a_lower_learning_rate_starts_anew():
    stage = set_up(DSG(), 1)
    for rate, stopped in ((0.1, False), (0.1, False), (0.1, True), (0.2, True), (0.05, False), (0.05, False)):
        stage.epoch_end(tensor([50]), rate)
        assert bool(stage.stopped) == stopped
    assert stage.best.item() == 50
    stage.epoch_end(tensor([40]), None)
    assert not stage.stopped
    stage.epoch_end(tensor([30]), 0.01)
    assert stage.best.isnan()
    stage.epoch_end(tensor([30]), None)
    stage.epoch_end(None, 0.01)
    assert stage.best.item() == 30
    stage.epoch_end(None, 0.001)
    assert stage.best.isnan()


def test_all_stopped_means_no_gradient():
    balancer = isonomy.build("dsg", tasks=3)
    balancer.stages[0].stopped.fill_(True)
    M().step(balancer)
    m = M()
    m.step(balancer)
    close(m.theta.grad, [0, 0], 0)
    close(m.heads, [0, 0, 0], 0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mode": "maximum"}, "did you mean 'max'"),
        ({"mode": ["max", "mni"]}, "did you mean 'min'"),
        ({"mode": ["max"]}, "1 entries for 2"),
        ({"interval": 0}, "interval=0"),
        ({"patience": -1}, "patience=-1"),
        ({"threshold": -0.1}, "threshold=-0.1"),
        ({"restart": float("nan")}, "restart=nan"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        isonomy.build("dsg", tasks=2, **options)


def test_the_balancer_wants_metrics():
    with pytest.raises(isonomy.IsonomyError, match="DSG"):
        isonomy.build("dsg", tasks=2).epoch_end(learning_rate=0.1)


def test_an_infinite_metric_is_no_best_for_good():
    # A perplexity that overflows in the first epoch; later ones keep falling, then rise, then stand still.
    series = [float("inf"), 50, 40, 30, float("inf"), 29, 29, 29, 29]
    assert flags(series, mode="min").flatten().tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1]
