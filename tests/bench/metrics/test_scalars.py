import pytest
import torch
from torchmetrics import MeanAbsoluteError
from torchmetrics.classification import MulticlassAccuracy

from isonomy.bench.metrics import L1, MAE, Accuracy
from isonomy.errors import IsonomyError


def test_accuracy_by_hand_and_against_torchmetrics():
    logits = torch.randn(50, 4)
    target = torch.randint(4, (50,))
    metric, peer = Accuracy(), MulticlassAccuracy(4, average="micro")
    for batch in zip(logits.split([7, 40, 3]), target.split([7, 40, 3]), strict=True):
        metric.update(*batch)
        peer.update(*batch)
    assert float(metric.compute()["accuracy"]) == pytest.approx(100 * float(peer.compute()), rel=1e-6)
    metric = Accuracy()
    metric.update(torch.eye(3), torch.tensor([0, 1, 0]))
    assert float(metric.compute()["accuracy"]) == pytest.approx(200 / 3)
    with pytest.raises(IsonomyError, match=r"classes outside 0\.\.2"):
        metric.update(torch.eye(3), torch.tensor([0, 1, 3]))


def test_mae_by_hand_and_against_torchmetrics():
    prediction, target = torch.randn(60), torch.randn(60)
    metric, peer = MAE(), MeanAbsoluteError().set_dtype(torch.float64)
    for batch in zip(prediction.split([7, 50, 3]), target.split([7, 50, 3]), strict=True):
        metric.update(*batch)
        peer.update(*(values.double() for values in batch))
    assert float(metric.compute()["MAE"]) == pytest.approx(float(peer.compute()), rel=1e-12)
    metric = MAE()
    metric.update(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    assert float(metric.compute()["MAE"]) == 2
    with pytest.raises(IsonomyError, match="MAE: a target is not finite"):
        metric.update(torch.zeros(2), torch.tensor([0.0, torch.nan]))


def test_sums_are_of_double_precision():
    # One float32 sum of these would stop growing at 2^24.
    metric = MAE()
    metric.update(torch.zeros(1), torch.tensor([2.0**25]))
    for _ in range(4):
        metric.update(torch.zeros(1), torch.ones(1))
    assert float(metric.compute()["MAE"]) == (2**25 + 4) / 5


def test_l1_is_over_labelled_pixels_and_components():
    target = torch.tensor([[1.0, torch.nan, 3.0], [250.0, 5.0, 6.0]]).view(1, 2, 1, 3)
    prediction = torch.tensor([[2.0, 99.0, 3.0], [252.0, 99.0, 3.0]]).view(1, 2, 1, 3)
    metric = L1()
    metric.update(prediction, target)
    # The middle pixel has half a label, so none: (1 + 2 + 0 + 3) / 4.
    assert float(metric.compute()["L1"]) == 1.5
    with pytest.raises(IsonomyError, match="L1: a target is infinite"):
        metric.update(prediction, target.nan_to_num(torch.inf))
