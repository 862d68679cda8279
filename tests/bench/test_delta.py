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


# Rows of the papers: (method, metrics in the order of the directions, printed overall score in percent); the first row
# of a table is the single-task one. Between them they have gains and losses of every sign.
OFFICE = {domain: {"accuracy": True} for domain in ("Amazon", "DSLR", "Webcam")}
REPLICA = {"segmentation": {"mIoU": True}, "depth": {"RMSE": False}, "normal": {"mErr": False}}
NYUV2 = [
    ("STL", 53.5, 75.39, 0.3926, 0.1605, 21.99, 15.16, 39.04, 65.0, 75.16, 0.0),
    ("EW", 53.93, 75.53, 0.3825, 0.1577, 23.57, 17.01, 35.04, 60.99, 72.05, -1.78),
    ("GLS", 54.59, 76.06, 0.3785, 0.1555, 22.71, 16.07, 36.89, 63.11, 73.81, 0.3),
    ("MTAdam", 52.67, 74.86, 0.3873, 0.1583, 23.26, 16.55, 36.0, 61.92, 72.74, -1.97),
    ("Aligned-MTL", 52.94, 75.0, 0.3884, 0.157, 22.65, 16.07, 36.88, 63.18, 73.94, -0.98),
    ("IMTL", 53.63, 75.44, 0.3868, 0.1592, 22.58, 15.85, 37.44, 63.52, 74.09, -0.57),
]
SEGNET = [
    ("STL", 38.3, 63.76, 0.6754, 0.278, 25.01, 19.21, 30.14, 57.2, 69.15, 0.0),
    ("EW", 39.29, 65.33, 0.5493, 0.2263, 28.15, 23.96, 22.09, 47.5, 61.08, 0.88),
    ("GradNorm", 20.09, 52.06, 0.72, 0.28, 24.83, 18.86, 30.81, 57.94, 69.73, -11.7),
    ("Nash-MTL", 40.13, 65.93, 0.5261, 0.2171, 25.26, 20.08, 28.4, 55.47, 68.15, 7.65),
    ("Aligned-MTL", 40.82, 66.33, 0.53, 0.22, 25.19, 19.71, 28.88, 56.23, 68.54, 8.16),
    ("DB-MTL", 41.42, 66.45, 0.5251, 0.216, 25.03, 19.5, 28.72, 56.17, 68.73, 8.91),
]
OFFICE_31 = [
    ("STL", 86.61, 95.63, 96.85, 0.0),
    ("EW", 83.53, 97.27, 96.85, -0.61),
    ("IGBv2", 84.52, 98.36, 98.05, 0.56),
    ("CAGrad", 83.65, 95.63, 96.85, -1.14),
    ("Nash-MTL", 85.01, 97.54, 97.41, 0.24),
    ("DB-MTL", 85.12, 98.63, 98.51, 1.05),
]
REPLICA_ROWS = [
    ("clean, Single-task", 55.15, 0.4358, 21.09, 0.0),
    ("clean, Multi-task", 53.14, 0.4455, 21.88, -3.21),
    ("noise, Single-task", 48.21, 0.5055, 26.11, -17.46),
    ("noise, Multi-task", 43.27, 0.4971, 26.04, -19.69),
    ("1/4 number of scenes (all scans), Single-task", 53.48, 0.4205, 21.31, -0.19),
    ("1/4 number of scenes (all scans), Multi-task", 51.62, 0.4961, 21.27, -7.03),
    ("1 scene (all scans), Single-task", 52.64, 0.4284, 21.6, -1.76),
    ("1 scene (all scans), Multi-task", 47.87, 0.5358, 22.09, -13.63),
]


@pytest.mark.parametrize(("up", "table"), [(UP, NYUV2), (UP, SEGNET), (OFFICE, OFFICE_31), (REPLICA, REPLICA_ROWS)])
def test_published_overall_scores_are_recomputed(up, table):
    def shaped(numbers):
        stream = iter(numbers)
        return {task: {metric: next(stream) for metric in metrics} for task, metrics in up.items()}

    alone = shaped(table[0][1:-1])
    for name, *numbers, printed in table:
        assert delta_p(shaped(numbers), alone, up) == pytest.approx(printed, abs=0.05), name


def test_the_mean_over_a_tasks_metrics_comes_before_the_mean_over_tasks():
    up = {"one": {"a": True}, "two": {"b": True, "c": False}}
    baseline = {"one": {"a": 2.0}, "two": {"b": 4.0, "c": 10.0}}
    run = {"one": {"a": 3.0}, "two": {"b": 5.0, "c": 20.0}}
    # +50; (+25 - 100) / 2 = -37.5. A flat mean over the metrics would be -8.3.
    assert task_deltas(run, baseline, up) == {"one": 50.0, "two": -37.5}
    assert delta_p(run, baseline, up) == 6.25
    assert delta_p(run, baseline, up, aggregate="flat") == pytest.approx(-25 / 3)
    with pytest.raises(IsonomyError, match=r"aggregate 'tasks': did you mean 'task'"):
        delta_p(run, baseline, up, aggregate="tasks")


@pytest.mark.parametrize("reference", [0.0, -1.0, float("nan"), float("inf")])
def test_a_baseline_that_is_not_positive_is_refused_by_name(reference):
    with pytest.raises(IsonomyError, match=r"score of task 'x' is"):
        delta_p({"x": {"score": 1.0}}, {"x": {"score": reference}}, {"x": {"score": True}})


def test_spread_is_the_sample_deviation():
    assert Spread.of([1.0, 2.0, 3.0]) == Spread(2.0, 1.0, 3)
    assert Spread.of([5.0]) == Spread(5.0, None, 1)


def test_average_is_metric_by_metric():
    assert average([{"x": {"m": 1.0, "n": 4.0}}, {"x": {"m": 2.0, "n": 0.0}}]) == {"x": {"m": 1.5, "n": 2.0}}
