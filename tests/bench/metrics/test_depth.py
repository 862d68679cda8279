import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_absolute_percentage_error, root_mean_squared_error

from isonomy.bench.metrics import Depth
from isonomy.errors import IsonomyError


def judged(prediction, target, **options):
    metric = Depth(**options)
    metric.update(torch.as_tensor(prediction), torch.as_tensor(target))
    return {name: float(value) for name, value in metric.compute().items()}


def test_by_hand():
    truth = torch.tensor([1.0, 2.0, 4.0, 0.0]).view(1, 1, 2, 2)
    guess = torch.tensor([2.0, 2.0, 2.0, 9.0]).view(1, 1, 2, 2)
    assert judged(guess, truth) == pytest.approx({"AErr": 1, "RErr": 0.5, "RMSE": (5 / 3) ** 0.5})
    assert judged(truth, truth) == {"AErr": 0, "RErr": 0, "RMSE": 0}
    marked = truth.masked_fill(truth == 0, 255)
    assert judged(guess, marked, ignore=255) == judged(guess, truth)
    assert judged(guess, truth, percent=True) == {**judged(guess, truth), "RErr": 50}


def test_only_the_root_mean_square_takes_negative_depths_for_zero():
    truth, guess = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0)
    assert judged(guess, truth) == {"AErr": 3, "RErr": 1.5, "RMSE": 2}


def test_against_scikit_learn_over_pixels_of_the_whole_set():
    random = np.random.default_rng(0)
    truth = random.uniform(0.5, 9, (6, 1, 5, 4)).astype(np.float32)
    truth[random.random(truth.shape) < np.linspace(0, 0.9, 6)[:, None, None, None]] = 0
    guess = np.abs(truth + random.normal(size=truth.shape).astype(np.float32))
    valid = truth != 0
    y, p = truth[valid].astype(np.float64), guess[valid].astype(np.float64)
    metric = Depth()
    for i in range(6):  # batches of unequal numbers of measured pixels: their means would not do
        metric.update(torch.from_numpy(guess[i : i + 1]), torch.from_numpy(truth[i : i + 1]))
    values = metric.compute()
    assert values["AErr"] == pytest.approx(mean_absolute_error(y, p), rel=1e-12)
    assert values["RErr"] == pytest.approx(mean_absolute_percentage_error(y, p), rel=1e-12)
    assert values["RMSE"] == pytest.approx(root_mean_squared_error(y, p), rel=1e-12)


@pytest.mark.parametrize("bad", [-1.0, torch.nan, torch.inf])
def test_a_measured_depth_that_is_not_positive_is_refused(bad):
    truth = torch.ones(1, 1, 2, 2)
    truth[0, 0, 0, 0] = bad
    with pytest.raises(IsonomyError, match="Depth: a measured depth is not a positive number: let 0 alone"):
        judged(torch.ones_like(truth), truth)
    with pytest.raises(IsonomyError, match="let 255 alone"):
        judged(torch.ones_like(truth), torch.zeros_like(truth), ignore=255)
