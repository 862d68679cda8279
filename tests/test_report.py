import torch

from isonomy import StepReport
from isonomy.gramian import Gramian


def test_as_dict_names_every_number():
    gramian = Gramian.of(torch.tensor([[4.0, -1.0], [-1.0, 1.0]]))
    report = StepReport(("a", "b"), torch.tensor([1.0, 2.0]), torch.ones(2), torch.tensor([1.0, 3.0]), gramian)
    numbers = report.as_dict("train/")
    assert numbers["train/loss/b"] == 2.0
    assert numbers["train/loss_weight/a"] == 1.0
    assert numbers["train/weight/b"] == 3.0
    assert numbers["train/norm/a"] == 2.0
    assert numbers["train/cosine/a/b"] == -0.5
    assert numbers["train/conflicts"] == 1.0
    # The aggregate is g_a + 3 g_b: its product with g_a is 4 - 3, with g_b -1 + 3, its norm sqrt(4 - 6 + 9).
    assert abs(numbers["train/alignment/a"] - 1 / (2 * 7**0.5)) < 1e-6
    assert abs(numbers["train/alignment/b"] - 2 / 7**0.5) < 1e-6


def test_a_method_without_task_gradients_reports_its_losses():
    report = StepReport(("a",), torch.tensor([1.0]), torch.tensor([0.5]))
    assert report.as_dict() == {"loss/a": 1.0, "loss_weight/a": 0.5}
    assert report.norms is report.cosines is report.alignment is report.conflicts is report.weights is None
