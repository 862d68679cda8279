"""NYUv2's normals, metrics and augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from isonomy.bench import data
from isonomy.bench.architectures import Design
from isonomy.bench.data import stand_ins
from isonomy.bench.data.roots import VARIABLE
from tests.bench.test_packed import arrays, change, tree


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def test_metrics_are_those_of_the_tables():
    def named(option: str) -> list[str]:
        return [f"{task.name}_{metric.name}" for task in data.load(option).tasks for metric in task.metrics]

    assert named("nyuv2") == [
        "seg_mIoU", "seg_PAcc", "depth_AErr", "depth_RErr",
        "normal_mean", "normal_median", "normal_11.25", "normal_22.5", "normal_30",
    ]  # fmt: skip
    assert named("nyuv2:metrics=imtl") == ["seg_mIoU", "depth_AErr", "normal_cosine"]
    recipe = data.load("nyuv2").recipe
    assert [recipe.rate(epoch, ()) for epoch in (0, 99, 100, 199)] == [1e-4, 1e-4, 5e-5, 5e-5]
    assert (recipe.weight_decay, recipe.select) == (1e-5, "best_val")


def test_a_normal_whose_components_add_up_to_nothing_is_one_except_for_mtan(root: Path):
    """Zero vectors are none for both."""
    folder = tree(root, "nyuv2")
    values = arrays(0)["normal"]
    values[0, 0], values[0, 1], values[0, 2] = 0, [0.8, -0.8, 0], [0.5, -0.25, -0.25]
    change(folder, "normal", values=values)
    invalid = {}
    for compat in ("none", "mtan"):
        problem = data.load(f"nyuv2:split=paper,compat={compat}")
        normal = problem.read("train", np.array([0]))["normal"][0]
        invalid[compat] = (normal == 0).all(0).nonzero().tolist()
        if compat == "none":
            torch.testing.assert_close(normal[:, 0, 1], torch.tensor([0.5, -0.5, 0]).sqrt().nan_to_num(-(0.5**0.5)))
    assert invalid == {"none": [[0, 0]], "mtan": [[0, 0], [0, 1], [0, 2]]}


def smooth(root: Path) -> Path:
    """One image with normals in all directions and a hole; others to be able to be split."""
    folder = tree(root, "nyuv2", train=2)
    draws = torch.Generator().manual_seed(0)
    values = functional.normalize(torch.randn(4, 6, 3, generator=draws), dim=-1)
    values[1, 2] = 0
    for number in range(2):
        change(folder, "normal", number, values=values.numpy())
    return folder


def test_augmented_normals_are_unit_or_none_except_for_mtan(root: Path):
    smooth(root)
    lengths = {}
    for compat in ("none", "mtan"):
        problem = data.load(f"nyuv2:split=paper,augment=true,compat={compat},batch_size=2")
        batches = [batch["normal"] for epoch in range(12) for batch in problem.batches(0, epoch, "cpu")]
        lengths[compat] = torch.cat(batches).norm(dim=1).flatten()
    one = lengths["none"]
    assert ((one < 1e-6) | ((one - 1).abs() < 1e-5)).all()
    assert 0 < (one == 0).float().mean() < 0.2
    assert ((lengths["mtan"] > 0.05) & (lengths["mtan"] < 0.95)).float().mean() > 0.1


def test_augmented_depth_is_divided_by_the_scale(root: Path):
    tree(root, "nyuv2", train=2)
    problem = data.load("nyuv2:split=paper,augment=true,batch_size=2")
    seen = set()
    for epoch in range(12):
        (batch,) = problem.batches(0, epoch, "cpu")
        for depth in batch["depth"]:
            assert depth.min() == depth.max()
            seen.add(round(float(depth.max()) * 128, 3))
    # Depths of the two images at the three scales.
    assert seen == {1.0, 0.833, 0.667, 2.0, 1.667, 1.333}


def test_a_mirrored_normal_points_the_other_way_along_x(root: Path):
    folder = tree(root, "nyuv2", train=2)
    values = np.broadcast_to(np.array([0.6, 0.0, 0.8]), (4, 6, 3))
    ramp = np.broadcast_to(np.linspace(0, 1, 6)[:, None], (4, 6, 3))
    for number in range(2):
        change(folder, "normal", number, values=values)
        change(folder, "image", number, values=ramp)
    problem = data.load("nyuv2:split=paper,augment=true,batch_size=2")
    sides = set()
    for epoch in range(12):
        (batch,) = problem.batches(0, epoch, "cpu")
        for image, normal in zip(batch["image"], batch["normal"], strict=True):
            mirrored = bool(image[0, 0, 0] > image[0, 0, -1])
            expected = torch.tensor([-0.6 if mirrored else 0.6, 0, 0.8]).view(3, 1, 1).expand(3, 4, 6)
            torch.testing.assert_close(normal, expected)
            sides.add(mirrored)
    assert sides == {False, True}


@pytest.mark.parametrize("name", ["nyuv2", "nyuv2:metrics=imtl,compat=mtan,augment=true", "cityscapes2"])
def test_a_network_trains_and_is_judged_on_a_stand_in(root: Path, name: str):
    base = name.partition(":")[0]
    stand_ins.write(base, root / base, size=(64, 64))
    problem = data.load(name)
    assert problem.samples.keys() == {"train", "val", "test"}
    assert {split: len(names) for split, names in problem.samples.items()} == {"train": 5, "val": 1, "test": 2}
    tasks = [task.name for task in problem.tasks]
    model = problem.network(Design("hps", "resnet_mini"), tasks, 0)
    batch = next(problem.batches(0, 0, "cpu"))
    losses = problem.losses(model, batch, tasks).losses
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.isfinite() and value > 0 for value in losses.values())
    values = problem.evaluate(model.eval(), tasks, "test")
    for task in problem.tasks:
        assert values[task.name].keys() == {metric.name for metric in task.metrics}
        assert all(np.isfinite(value) for value in values[task.name].values())
    assert problem.pictures(model, tasks).keys() >= {"0-image", "1-depth-truth", "1-seg"}
