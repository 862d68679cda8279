"""``isonomy data check``: counts, ranges, doubts, damage and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from isonomy.bench import cli, data
from isonomy.bench.data import check, sheet, stand_ins
from isonomy.bench.data.roots import VARIABLE
from isonomy.errors import IsonomyError
from tests.bench.test_packed import change, tree


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def findings(name: str = "nyuv2:split=paper", limit: int | None = None) -> check.Findings:
    return check.check(check.opened(name), limit)


def test_ranges_are_those_of_what_is_valid(root: Path):
    folder = tree(root, "nyuv2", train=2, test=1)
    change(folder, "depth", at=(0, 0, 0), value=0)
    change(folder, "label", at=(0, slice(0, 3)), value=-1)
    change(folder, "image", at=(2, 3, 1), value=1.0)
    found = findings()
    train = found.ranges["train"]
    assert found.counts == {"train": 2, "test": 1}
    assert not found.damaged
    assert list(train) == ["image", "seg", "depth", "normal[0]", "normal[1]", "normal[2]"]
    image, depth, seg = train["image"], train["depth"], train["seg"]
    assert (image.shape, image.dtype, image.most) == ("3x4x6", "float32", 1.0)
    assert image.mean == pytest.approx((71 / 64 + 1 + 72 * 2 / 64) / 144)
    assert (depth.least, depth.most, depth.valid, depth.numbers) == (1 / 128, 2 / 128, 47, 48)
    assert (seg.least, seg.most, seg.valid, seg.dtype) == (0, 1, 45, "int64")
    assert train["normal[1]"].least == 1
    assert train["normal[0]"].most == 0
    assert train["normal[0]"].valid == 48
    text = "\n".join(found.lines())
    assert "train: 2 samples (papers: 795 on disk)" in text
    assert "none 2.08 %" in text
    assert "Non-standard split of nyuv2" in text
    assert "0 of 3 samples are damaged." in text


def test_damaged_files_are_all_counted_and_ten_are_named(root: Path):
    folder = tree(root, "nyuv2", train=20, test=2)
    for number in range(4, 17):
        change(folder, "label", number, at=(0, 0), value=99)
    (folder / "val" / "depth" / "1.npy").write_bytes(b"")
    found = findings()
    assert len(found.damaged) == 14
    lines = list(found.lines())
    named = [line for line in lines if "is damaged" in line]
    assert len(named) == 10
    assert all(f"{number}.npy (sample {number})" in named[number - 4] for number in range(4, 14))
    assert lines[-2:] == ["... and 4 more.", "14 of 22 samples are damaged."]
    assert found.ranges["train"]["seg"].valid == 7 * 24


def test_a_limit_looks_at_samples_from_first_to_last(root: Path):
    folder = tree(root, "nyuv2", train=9, test=2)
    change(folder, "image", 8, at=(0, 0, 0), value=0.75)
    change(folder, "label", 1, at=(0, 0), value=99)
    found = findings(limit=3)
    assert not found.damaged
    assert found.ranges["train"]["seg"].numbers == 3 * 24
    assert found.ranges["train"]["image"].most == 0.75
    assert list(found.lines())[-1] == "0 of 5 samples are damaged."
    assert check.spread(5, None) == [0, 1, 2, 3, 4]
    assert check.spread(5, 1) == [0]
    assert check.spread(2, 9) == [0, 1]
    with pytest.raises(IsonomyError, match="--limit is 0"):
        findings(limit=0)


def test_what_is_readable_and_hardly_right_is_doubted(root: Path):
    folder = tree(root, "nyuv2", train=3, test=1)
    for split, count in (("train", 3), ("val", 1)):
        for number in range(count):
            change(folder, "depth", number, split, values=np.full((4, 6), 2500.0))
            change(folder, "label", number, split, values=np.full((4, 6), 1))
    change(folder, "image", at=(0, 0, 0), value=1.25)
    doubts = "\n".join(findings().doubts)
    assert "images of train go from 0.015625 to 1.25, and should from 0 to 1." in doubts
    assert "depths of train are 2500 on average, which are hardly metres." in doubts
    assert "labels of seg end at 1: are they those of 13 classes?" in doubts
    for number in range(3):
        change(folder, "depth", number, values=np.zeros((4, 6)))
        change(folder, "image", number, values=np.full((4, 6, 3), 1 / 255))
    doubts = "\n".join(findings().doubts)
    assert "no sample of train has any depth." in doubts
    assert "images of train are nearly black, at most 0.00392157" in doubts


def test_nothing_is_doubted_of_a_data_set_as_it_should_be(root: Path):
    folder = tree(root, "nyuv2", train=13, test=2)
    for number in range(13):
        change(folder, "depth", number, values=np.full((4, 6), 2.5))
        change(folder, "label", number, values=np.full((4, 6), number))
    for number in range(2):
        change(folder, "depth", number, "val", values=np.full((4, 6), 2.5))
    assert findings().doubts == []


class Photos:
    """What is no map: a photograph with a number, of two sizes, and offsets, whose zeros count."""

    name = "photos"
    samples = {"train": ["a", "b"], "test": ["c"]}  # noqa: RUF012
    tasks = (data.Task("label", (data.Metric("accuracy", up=True),)),)
    notes = ()

    def example(self, split: str, index: int) -> dict[str, torch.Tensor]:
        return {"image": torch.rand(3, 20, 30 + index), "label": torch.tensor(7 * index)}


class Numbers(Photos):
    """No pictures: molecules."""

    def example(self, split: str, index: int) -> dict[str, torch.Tensor]:
        return {"mu": torch.tensor([1.5, float("nan")]), "z": torch.tensor([-1, 255, 8])}


def test_data_sets_of_other_kinds_are_looked_at_too(tmp_path: Path):
    ranges = check.check(Photos()).ranges["train"]
    assert (ranges["image"].shape, ranges["label"].shape, ranges["label"].most) == ("3x20x*", "a number", 7)
    assert sheet.save(Photos(), tmp_path / "new" / "sheet.png")
    ranges = check.check(Numbers()).ranges["train"]
    assert (ranges["mu"].valid, ranges["mu"].numbers, ranges["z"].valid) == (2, 4, 6)
    assert not sheet.save(Numbers(), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_zeros_of_offsets_are_numbers_and_no_numbers_are_none():
    task = data.load("rooms:profile=city3").tasks[1]
    values = torch.tensor([[[0.0, 1.0, float("nan")]], [[0.0, 2.0, float("nan")]]])
    assert task.metrics[0].name == "L1"
    assert check._valid(values, task).tolist() == [[[True, True, False]], [[True, True, False]]]


def test_the_sheet_has_images_beside_their_labels(root: Path):
    folder = tree(root, "nyuv2", train=2, test=1)
    values = np.zeros((4, 6, 3))
    values[..., 0] = 1  # red
    change(folder, "image", values=values)
    (folder / "train" / "image" / "1.npy").write_bytes(b"")  # a damaged one is left out
    assert sheet.save(check.opened("nyuv2:split=paper"), root / "sheet.png")
    pixels = np.asarray(Image.open(root / "sheet.png"))
    tile = round(4 * sheet.WIDTH / 6)
    assert pixels.shape == (2 * (tile + sheet.CAPTION), 4 * sheet.WIDTH, 3)
    middle = sheet.CAPTION + tile // 2
    assert pixels[middle, sheet.WIDTH // 2].tolist() == [255, 0, 0]
    # The normal (0, 1, 0) is green and half of the others.
    assert pixels[middle, 3 * sheet.WIDTH + 9].tolist() == [128, 255, 128]


def test_the_command_line(root: Path, capfd: pytest.CaptureFixture[str]):
    folder = tree(root, "cityscapes2", train=4, test=2)
    assert cli.run(["data", "check", "cityscapes2", str(root)]) == 0
    assert "cityscapes2-samples.png" in capfd.readouterr().out
    assert (root / "cityscapes2-samples.png").stat().st_size > 1000
    assert cli.run(["data", "check", "cityscapes2", str(folder), "--picture", "a.png", "--limit", "1"]) == 0
    assert (root / "a.png").exists()
    change(folder, "label", 2, at=(0, 0), value=18)
    assert cli.run(["data", "check", "cityscapes2", str(root)]) == 2
    assert "label/2.npy (sample 2) is damaged (it holds 18" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["digits", "."], "Data set 'digits' is made here and has no files: check one of nyuv2"),
        (["nyuv3", "."], "did you mean 'nyuv2'"),
        (["nyuv2", "nowhere"], "nowhere is not a folder"),
        (["nyuv2", "."], "train is missing"),
        (["nyuv2", ".", "--picture", "a.gif"], "name a file that ends in .png"),
    ],
)
def test_what_cannot_be_checked(root: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], reason: str):
    assert cli.run(["data", "check", *arguments]) == 2
    assert reason in capfd.readouterr().err


def test_a_damaged_file_that_notes_look_at_is_reported_like_others(root: Path):
    stand_ins.write("replica3", root / "replica3", (64, 64))
    first = min((root / "replica3" / "rgb" / "replica" / "office_2").iterdir())
    first.write_bytes(b"x")
    found = findings("replica3:size=64x64", limit=1)
    assert len(found.damaged) == 1
    assert f"{first} (sample 0) is damaged" in found.damaged[0]
    assert set(found.ranges["train"]) >= {"image", "seg"}
