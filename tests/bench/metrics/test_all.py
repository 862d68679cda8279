"""What holds for every metric: batches, processes, names and refusals."""

import pytest
import torch

from isonomy.bench import metrics
from isonomy.errors import IsonomyError
from tests.bench.metrics.feed import NAMES, draw
from tests.distributed.processes import run

KEYS = {
    metrics.Segmentation: ["mIoU", "PAcc"],
    metrics.Depth: ["AErr", "RErr", "RMSE"],
    metrics.Normals: ["mean", "median", "11.25", "22.5", "30", "mErr", "cosine"],
    metrics.Saliency: ["maxF"],
    metrics.Edges: ["odsF"],
    metrics.Accuracy: ["accuracy"],
    metrics.MAE: ["MAE"],
    metrics.L1: ["L1"],
}


def fed(make, prediction, target, sizes):
    metric = make()
    for batch in zip(prediction.split(sizes), target.split(sizes), strict=True):
        metric.update(*batch)
    return metric


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-12, atol=0, msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_any_batches_give_what_the_whole_set_gives(name):
    make, prediction, target = draw(9)[name]
    whole = fed(make, prediction, target, 9).compute()
    assert list(whole) == KEYS[type(make())]
    assert all(value.dtype == torch.float64 and value.shape == () and value.isfinite() for value in whole.values())
    for sizes in ([1] * 9, [4, 1, 4], [2, 7]):
        same(fed(make, prediction, target, sizes).compute(), whole)
    metric = fed(make, prediction, target, [4, 5])
    metric.reset()
    metric.update(prediction, target)
    same(metric.compute(), whole)
    # The batch's own values, as training loops log them, do not disturb the sums.
    metric = make()
    halves = [metric(prediction[:4], target[:4]), metric(prediction[4:], target[4:])]
    same(halves[1], fed(make, prediction[4:], target[4:], 5).compute())
    same(metric.compute(), whole)


def shard(rank, world):
    """Process 0 has two batches of 3 and 2, process 1 one of 4."""
    values = {}
    for name, (make, prediction, target) in draw(9).items():
        mine = slice(0, 5) if rank == 0 else slice(5, 9)
        values[name] = fed(make, prediction[mine], target[mine], [3, 2] if rank == 0 else [4]).compute()
    return values


def test_two_processes_give_what_one_gives(tmp_path):
    found = run(shard, 2, tmp_path)
    for name, (make, prediction, target) in draw(9).items():
        whole = fed(make, prediction, target, 9).compute()
        for values in found:
            same(values[name], whole)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_prediction_that_is_not_finite_is_refused_and_changes_nothing(name, bad):
    make, prediction, target = draw(4)[name]
    metric = fed(make, prediction, target, 4)
    before = {key: value.clone() for key, value in metric.metric_state.items()}
    spoilt = prediction.clone()
    spoilt.view(-1)[-1] = bad
    with pytest.raises(IsonomyError, match=f"{type(metric).__name__}: a prediction is not finite"):
        metric.update(spoilt, target)
    assert all(torch.equal(value, before[key]) for key, value in metric.metric_state.items())


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_kinds_that_do_not_fit_are_refused(name):
    make, prediction, target = draw(4)[name]
    metric = make()
    wrong = [
        (prediction[:3], target),
        (prediction[..., None], target),
        (prediction, target[..., None]),
        (prediction.long(), target),
        (prediction, target.long() if target.is_floating_point() else target.float()),
    ]
    if prediction.dim() == 4:
        wrong += [(prediction[..., :-1], target), (torch.cat([prediction] * 4, 1), target)]
    for arguments in wrong:
        with pytest.raises(IsonomyError, match=type(metric).__name__):
            metric.update(*arguments)
    assert not any(value.any() for value in metric.metric_state.values())


@pytest.mark.parametrize("name", NAMES)
def test_without_anything_to_judge_means_are_nan_and_f_measures_zero(name):
    make, prediction, target = draw(2)[name]
    nothing = {"segmentation": -1, "saliency": 255, "edges": 255, "depth": 0, "normals": 0, "L1": torch.nan}
    mark = next((value for key, value in nothing.items() if name.startswith(key)), None)
    if mark is None:  # every sample has a label: the set is empty
        prediction, target = prediction[:0], target[:0]
    else:
        target = torch.full_like(target, mark)
    for key, value in fed(make, prediction, target, 2).compute().items():
        if key in ("odsF", "maxF"):
            assert value == 0
        elif name == "segmentation as MTAN" and key == "mIoU":
            assert value == 0  # Predictions on unlabelled pixels are wrong there.
        else:
            assert value.isnan()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_labels_adds_nothing(name):
    make, prediction, target = draw(4)[name]
    mark = {"segmentation": -1, "saliency": 255, "edges": 255, "depth": 0, "normals": 0, "L1": torch.nan}.get(name)
    if mark is None:
        prediction_, target_ = prediction[:0], target[:0]
    else:
        prediction_, target_ = prediction, torch.full_like(target, mark)
    metric = fed(make, prediction, target, [4])
    whole = metric.compute()
    metric.update(prediction_, target_)
    same(metric.compute(), whole)
