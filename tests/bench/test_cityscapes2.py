"""Cityscapes' inverse depth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from isonomy.bench import data
from isonomy.bench.architectures.output import Output
from isonomy.bench.data.roots import VARIABLE
from tests.bench.test_packed import tree


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("compat", "expected"),
    [("none", {1.0, 1.2, 1.5, 2.0, 2.4, 3.0}), ("cagrad", {1.0, 0.833, 0.667, 2.0, 1.667, 1.333})],
)
def test_inverse_depth_grows_with_the_scale_and_shrinks_for_cagrad(root: Path, compat: str, expected: set[float]):
    tree(root, "cityscapes2", train=2)
    problem = data.load(f"cityscapes2:split=paper,augment=true,batch_size=2,compat={compat}")
    batches = [batch["depth"] for epoch in range(12) for batch in problem.batches(0, epoch, "cpu")]
    assert {round(float(depth.max()) * 128, 3) for depth in torch.cat(batches)} == expected


class Doubled(nn.Module):
    """Predicts twice the depth of the test images, one after the other, and the right class everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: torch.Tensor) -> Output:
        # The hand-made images are as bright as their depth is large: (n + 1) / 64 and (n + 1) / 128.
        depth = self.scale * images[:, :1] / 2
        number = (64 * images[:, 0]).round().long() - 1
        seg = nn.functional.one_hot(number % 7, 7).movedim(-1, 1).float()
        return Output(None, {"seg": seg, "depth": depth})


def test_the_relative_error_is_in_percent_as_papers_print_it(root: Path):
    tree(root, "cityscapes2")
    problem = data.load("cityscapes2")
    values = problem.evaluate(Doubled(), ["seg", "depth"], "test")
    assert values["seg"] == pytest.approx({"mIoU": 100, "PAcc": 100})
    assert values["depth"] == pytest.approx({"AErr": 34 / 128, "RErr": 100})
    assert [metric.unit for metric in problem.tasks[1].metrics] == ["", "%"]
