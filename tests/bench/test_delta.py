import pytest

from isonomy.bench.delta import Spread, average, delta_p, task_deltas
from isonomy.errors import IsonomyError

UP = {
    "segmentation": {"mIoU": True, "PAcc": True},
    "depth": {"AErr": False, "RErr": False},
    "normal": {"mean": False, "median": False, "11.25": True, "22.5": True, "30": True},
}


def values(*numbers):
    stream = iter(numbers)
    return {task: {metric: next(stream) for metric in metrics} for task, metrics in UP.items()}


def test_the_published_row_of_db_mtl_on_nyuv2():
    alone = values(53.50, 75.39, 0.3926, 0.1605, 21.99, 15.16, 39.04, 65.00, 75.16)
    db_mtl = values(53.92, 75.60, 0.3768, 0.1557, 21.97, 15.37, 38.43, 64.81, 75.24)
    assert delta_p(db_mtl, alone, UP) == pytest.approx(1.15, abs=0.01)
    assert delta_p(alone, alone, UP) == 0


def test_the_mean_over_a_tasks_metrics_comes_before_the_mean_over_tasks():
    up = {"one": {"a": True}, "two": {"b": True, "c": False}}
    baseline = {"one": {"a": 2.0}, "two": {"b": 4.0, "c": 10.0}}
    run = {"one": {"a": 3.0}, "two": {"b": 5.0, "c": 20.0}}
    # +50; (+25 - 100) / 2 = -37.5. A flat mean over the metrics would be -8.3.
    assert task_deltas(run, baseline, up) == {"one": 50.0, "two": -37.5}
    assert delta_p(run, baseline, up) == 6.25


@pytest.mark.parametrize("reference", [0.0, -1.0, float("nan")])
def test_a_baseline_that_is_not_positive_is_refused_by_name(reference):
    with pytest.raises(IsonomyError, match=r"score of task 'x' is"):
        delta_p({"x": {"score": 1.0}}, {"x": {"score": reference}}, {"x": {"score": True}})


def test_spread_is_the_sample_deviation():
    assert Spread.of([1.0, 2.0, 3.0]) == Spread(2.0, 1.0, 3)
    assert Spread.of([5.0]) == Spread(5.0, None, 1)


def test_average_is_metric_by_metric():
    assert average([{"x": {"m": 1.0, "n": 4.0}}, {"x": {"m": 2.0, "n": 0.0}}]) == {"x": {"m": 1.5, "n": 2.0}}
