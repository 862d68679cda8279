"""MTAN's packaging: what is read of files that the tests write by hand, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isonomy.bench import data
from isonomy.bench.data.roots import VARIABLE
from isonomy.errors import IsonomyError

HEIGHT, WIDTH = 4, 6
FIELDS = {"nyuv2": ("image", "label", "depth", "normal"), "cityscapes2": ("image", "label", "depth")}
UP = np.array([0.0, 1.0, 0.0])


def arrays(number: int) -> dict[str, np.ndarray]:
    """An image's files; numbers in them tell which image they are of."""
    return {
        "image": np.full((HEIGHT, WIDTH, 3), (number + 1) / 64),
        "label": np.full((HEIGHT, WIDTH), number % 7, dtype=np.float64),
        "depth": np.full((HEIGHT, WIDTH, 1), (number + 1) / 128),
        "normal": np.broadcast_to(UP, (HEIGHT, WIDTH, 3)).copy(),
    }


def tree(root: Path, name: str, train: int = 11, test: int = 3) -> Path:
    """A data set's folder below ``root``, with its files."""
    for split, count in (("train", train), ("val", test)):
        for number in range(count):
            for field, values in arrays(number + (32 if split == "val" else 0)).items():
                if field in FIELDS[name]:
                    path = root / name / split / field / f"{number}.npy"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    np.save(path, values)
    return root / name


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def change(folder: Path, field: str, number: int = 0, split: str = "train", **options: Any) -> Path:
    """Writes one file again."""
    path = folder / split / field / f"{number}.npy"
    values = options.get("values")
    if values is None:
        values = arrays(number)[field]
        values[options["at"]] = options["value"]
    np.save(path, values)
    return path


@pytest.mark.parametrize("name", FIELDS)
def test_every_image_meets_its_labels(root: Path, name: str):
    tree(root, name)
    problem = data.load(name)
    seen = set()
    for split, names in problem.samples.items():
        for index, each in enumerate(names):
            sample = problem.example(split, index)
            number = int(each) + (32 if split == "test" else 0)
            seen.add(number)
            torch.testing.assert_close(sample["image"], torch.full((3, HEIGHT, WIDTH), (number + 1) / 64))
            assert torch.equal(sample["seg"], torch.full((HEIGHT, WIDTH), number % 7))
            torch.testing.assert_close(sample["depth"], torch.full((1, HEIGHT, WIDTH), (number + 1) / 128))
    assert seen == {*range(11), 32, 33, 34}
    assert problem.size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("name", FIELDS)
def test_rows_and_columns_channels_and_void(root: Path, name: str):
    folder = tree(root, name)
    change(folder, "image", at=(1, 4, 2), value=0.5)
    change(folder, "label", at=(1, 4), value=-1)
    change(folder, "depth", at=(3, 5, 0), value=0.0)
    sample = data.load(f"{name}:split=paper").example("train", 0)
    assert sample["image"][2, 1, 4] == 0.5
    assert (sample["image"] == 0.5).sum() == 1
    assert sample["seg"][1, 4] == -1
    assert (sample["seg"] == -1).sum() == 1
    assert sample["depth"][0, 3, 5] == 0
    assert (sample["depth"] == 0).sum() == 1


def test_every_kind_of_number_and_a_depth_without_a_channel_are_read_alike(root: Path):
    folder = tree(root, "nyuv2")
    problem = data.load("nyuv2:split=paper")
    before = problem.example("train", 3)
    for field, kind in (("image", np.float16), ("label", np.int8), ("depth", np.float32), ("normal", np.float32)):
        values = arrays(3)[field].astype(kind)
        change(folder, field, 3, values=values[..., 0] if field == "depth" else values)
    after = problem.example("train", 3)
    for field, tensor in before.items():
        torch.testing.assert_close(after[field], tensor)
        assert after[field].dtype == tensor.dtype


def test_numbers_count_and_not_the_order_of_their_digits(root: Path):
    tree(root, "cityscapes2", train=12)
    assert data.load("cityscapes2:split=paper").samples["train"] == [str(number) for number in range(12)]


def test_a_tenth_of_the_training_images_is_for_validation_the_same_ones_always(root: Path):
    tree(root, "cityscapes2", train=20)
    first, again = (data.load("cityscapes2").samples for _ in range(2))
    assert first == again
    assert list(first) == ["train", "val", "test"]
    assert {split: len(names) for split, names in first.items()} == {"train": 18, "val": 2, "test": 3}
    assert {*first["train"], *first["val"]} == {str(number) for number in range(20)}
    paper = data.load("cityscapes2:split=paper")
    assert paper.splits == tuple(paper.samples) == ("train", "test")
    assert len(paper.samples["train"]) == 20


def test_other_numbers_of_images_are_noted(root: Path):
    tree(root, "nyuv2")
    assert data.load("nyuv2").notes == ("Non-standard split of nyuv2: 11 of 795 for train, 3 of 654 for test.",)


@pytest.mark.parametrize("name", FIELDS)
def test_nothing_is_looked_up_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.delenv(VARIABLE, raising=False)
    problem = data.load(name)
    assert problem.splits == ("train", "val", "test")
    assert problem.tasks
    assert problem.recipe.epochs == 200
    with pytest.raises(IsonomyError, match="nothing is downloaded: name their folder with --data-root"):
        len(problem.samples)


def test_the_folder_itself_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, str(tree(tmp_path, "nyuv2")))
    assert len(data.load("nyuv2").samples["test"]) == 3


def missing(folder: Path, gone: str, tmp_path: Path) -> None:
    (folder / gone).rename(tmp_path / "gone")


@pytest.mark.parametrize("gone", ["val", "train/depth", "train/normal/7.npy", "val/label/2.npy"])
def test_a_partial_tree_is_refused_with_what_is_missing_and_what_is_expected(root: Path, gone: str):
    folder = tree(root, "nyuv2")
    missing(folder, gone, root)
    with pytest.raises(IsonomyError) as caught:
        len(data.load("nyuv2").samples)
    assert f"{folder / gone} is missing." in str(caught.value)
    assert "MTAN" in str(caught.value)
    assert "label/NUMBER.npy" in str(caught.value)


def test_an_empty_tree_is_refused(root: Path):
    for split in ("train", "val"):
        for field in FIELDS["nyuv2"]:
            (root / "nyuv2" / split / field).mkdir(parents=True)
    with pytest.raises(IsonomyError, match=r"nyuv2/train/image/0\.npy is missing"):
        len(data.load("nyuv2").samples)


SPOILT: list[tuple[str, str, dict[str, Any], str]] = [
    ("nyuv2", "image", {"at": (0, 0, 0), "value": 255}, "its values go from 0.015625 to 255, an image's from 0 to 1"),
    ("nyuv2", "image", {"values": np.zeros((HEIGHT, WIDTH))}, r"its shape is \(4, 6\), its image wants \(4, 6, 3\)"),
    ("nyuv2", "label", {"at": (0, 0), "value": 13}, "it holds 13, which is none of -1, …, 12"),
    ("nyuv2", "label", {"at": (0, 0), "value": 0.5}, "it holds 0.5, which is none of -1, …, 12"),
    ("nyuv2", "label", {"values": np.zeros((HEIGHT, WIDTH + 1))}, "its shape is"),
    ("nyuv2", "depth", {"at": (0, 0, 0), "value": -1}, "its smallest value is -1, and 0 is for none"),
    ("nyuv2", "depth", {"at": (0, 0, 0), "value": np.nan}, "some of its values are not finite"),
    ("nyuv2", "normal", {"at": (0, 0, 0), "value": 2}, "a component is 2, beyond 1"),
    ("cityscapes2", "label", {"at": (0, 0), "value": 18}, "holds 18, .* archives with 2 and with 19 classes"),
    ("cityscapes2", "depth", {"at": (0, 0, 0), "value": 32257}, "largest value is 32257, inverse depth stays below 1"),
]


@pytest.mark.parametrize(("name", "field", "options", "reason"), SPOILT)
def test_a_spoilt_file_is_named_with_its_sample(root: Path, name: str, field: str, options: Any, reason: str):
    folder = tree(root, name)
    problem = data.load(f"{name}:split=paper")
    problem.example("train", 0)
    path = change(folder, field, **options)
    with pytest.raises(IsonomyError, match=reason) as caught:
        problem.example("train", 0)
    assert str(caught.value).startswith(f"{path} (sample 0) is damaged")
    problem.example("train", 1)


@pytest.mark.parametrize("cut", [0, 40, 200])
def test_a_file_that_ends_early_or_is_another_is_named_with_its_place_on_disk(root: Path, cut: int):
    path = tree(root, "nyuv2") / "train" / "normal" / "5.npy"
    path.write_bytes(path.read_bytes()[:cut] if cut else b"<html>not found</html>")
    problem = data.load("nyuv2:split=paper")
    with pytest.raises(IsonomyError, match=r"5\.npy \(sample 5\) is damaged"):
        problem.example("train", 5)
    honest = data.load("nyuv2")
    split = "train" if "5" in honest.samples["train"] else "val"
    with pytest.raises(IsonomyError, match=r"5\.npy \(sample 5\) is damaged"):
        honest.example(split, list(honest.samples[split]).index("5"))


def test_objects_in_files_are_not_run(root: Path):
    folder = tree(root, "nyuv2")
    np.save(folder / "train" / "label" / "0.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(IsonomyError, match="Object arrays cannot be loaded"):
        data.load("nyuv2:split=paper").example("train", 0)


def test_all_images_have_the_first_ones_size(root: Path):
    folder = tree(root, "cityscapes2")
    change(folder, "image", 4, values=np.zeros((8, 8, 3)))
    problem = data.load("cityscapes2:split=paper")
    with pytest.raises(IsonomyError, match=r"4\.npy \(sample 4\) .* \(8, 8, 3\)"):
        problem.example("train", 4)
    change(folder, "image", 0, values=np.zeros((8, 8)))
    with pytest.raises(IsonomyError, match=r"0\.npy \(sample 0\) .* an image's is \(height, width, 3\)"):
        _ = data.load("cityscapes2:split=paper").size


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("split=test", "Unknown split of nyuv2 'test'"),
        ("compat=mtann", "Unknown value of compat of nyuv2 'mtann': did you mean 'mtan'"),
        ("metrics=dbmtll", "Unknown metrics of nyuv2 'dbmtll': did you mean 'dbmtl'"),
        ("batch_size=0", "batch_size of nyuv2 is 0"),
        ("workers=-1", "workers of nyuv2 is -1"),
    ],
)
def test_options_that_there_are_not(option: str, reason: str):
    with pytest.raises(IsonomyError, match=reason):
        data.load(f"nyuv2:{option}")


def test_images_are_changed_in_training_alone_and_by_seed_epoch_and_image_alone(root: Path):
    folder = tree(root, "cityscapes2", train=12)
    for number in range(12):
        draws = np.random.default_rng(number)
        change(folder, "image", number, values=draws.random((HEIGHT, WIDTH, 3)))

    def visited(options: str, epoch: int) -> torch.Tensor:
        """Every image's sum, in order of size: what images there are, however they are shuffled."""
        batches = data.load(f"cityscapes2:split=paper,{options}").batches(0, epoch, "cpu")
        return torch.cat([batch["image"] for batch in batches]).sum((1, 2, 3)).sort().values

    plain = visited("batch_size=4", 0)
    torch.testing.assert_close(plain, visited("batch_size=4", 1))
    one = visited("augment=true,batch_size=4", 0)
    assert not torch.allclose(one, plain)
    assert not torch.allclose(one, visited("augment=true,batch_size=4", 1))
    # Neither the batches nor processes that read ahead change what is drawn for an image.
    torch.testing.assert_close(one, visited("augment=true,batch_size=3", 0))
    torch.testing.assert_close(one, visited("augment=true,batch_size=4,workers=2", 0))


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_ahead_names_damaged_files_and_draws_nothing(root: Path, workers: int):
    folder = tree(root, "nyuv2", train=2)
    change(folder, "label", 1, at=(0, 0), value=99)
    batches = data.load(f"nyuv2:split=paper,batch_size=1,augment=true,workers={workers}").batches(0, 0, "cpu")
    state = torch.random.get_rng_state()
    with pytest.raises(IsonomyError, match=r"^\S+1\.npy \(sample 1\) is damaged"):
        list(batches)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", FIELDS)
def test_what_reads_can_be_sent_to_other_processes(root: Path, name: str):
    """Where they do not begin as copies of this one."""
    tree(root, name)
    problem = data.load(name)
    sent = pickle.loads(pickle.dumps(problem))
    before, after = (each.example("val", 0) for each in (problem, sent))
    assert all(torch.equal(before[field], after[field]) for field in before)


def test_without_any_image_the_first_one_is_missing(root: Path):
    folder = tree(root, "nyuv2")
    for path in (folder / "val" / "image").parent.rglob("*.npy"):
        path.rename(path.with_suffix(".NPY"))
    with pytest.raises(IsonomyError, match=r"val/image/0\.npy is missing"):
        _ = data.load("nyuv2").samples


def test_hidden_files_are_no_samples(root: Path):
    folder = tree(root, "nyuv2", train=3, test=1)
    for path in list(folder.rglob("*.npy")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
        path.with_name(".DS_Store").touch()
    assert data.load("nyuv2:split=paper").samples == {"train": ["0", "1", "2"], "test": ["0"]}


def test_a_file_in_place_of_a_folder_is_named(root: Path):
    folder = tree(root, "nyuv2")
    for path in (folder / "val" / "depth").iterdir():
        path.unlink()
    (folder / "val" / "depth").rmdir()
    (folder / "val" / "depth").touch()
    with pytest.raises(IsonomyError, match=r"val/depth cannot be read(.|\n)*Expected:\nnyuv2/"):
        _ = data.load("nyuv2").samples
