import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from isonomy.bench import data
from isonomy.bench.architectures import Design
from isonomy.bench.data import stand_ins
from isonomy.bench.data.cityscapes3 import Cityscapes3
from isonomy.errors import IsonomyError

# The benchmark's own numbering, id by id.
TRAIN_IDS = {
    **{7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14},
    **{28: 15, 31: 16, 32: 17, 33: 18},
}


def save(root, split, city, frame, **arrays):
    """The files of one image, as the release names them."""
    stem = f"{city}/{city}_{frame:06}_000019"
    names = {
        "image": f"leftImg8bit/{split}/{stem}_leftImg8bit.png",
        "ids": f"gtFine/{split}/{stem}_gtFine_labelIds.png",
        "instances": f"gtFine/{split}/{stem}_gtFine_instanceIds.png",
        "disparity": f"disparity/{split}/{stem}_disparity.png",
    }
    for part, array in arrays.items():
        path = root / names[part]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    return {part: root / name for part, name in names.items()}


def arrays(size=(8, 16)):
    """Nothing but void, everywhere."""
    return {
        "image": np.zeros((*size, 3), dtype=np.uint8),
        "ids": np.zeros(size, dtype=np.uint8),
        "instances": np.zeros(size, dtype=np.uint16),
        "disparity": np.zeros(size, dtype=np.uint16),
    }


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    return tmp_path / "cityscapes3"


def tree(root, size=(8, 16), first=None):
    """Two images to train on and one to test on; the first one's arrays are given."""
    save(root, "val", "ulm", 0, **arrays(size))
    save(root, "train", "bonn", 1, **arrays(size))
    return save(root, "train", "aachen", 7, **(first or arrays(size)))


def first(**options):
    problem = Cityscapes3(split="paper", **options)
    assert problem.samples["train"][0] == "aachen/aachen_000007_000019"
    return problem.example("train", 0)


def test_files_become_classes_offsets_and_pixels(root):
    own = arrays()
    own["image"][0, :3] = [[255, 0, 0], [0, 255, 0], [0, 0, 51]]
    own["ids"][1, :4] = [7, 26, 33, 4]
    own["ids"][7, 15] = 24
    # A car of four pixels, a group of people, and a lone bicycle whose number is 0.
    own["instances"][2:4, 4:6] = 26001
    own["instances"][5, 5:8] = 24
    own["instances"][6, 9] = 33000
    own["instances"][7, 0:3] = 7
    own["disparity"][0, :5] = [0, 1, 257, 1 + 256 * 20, 32257]
    tree(root, first=own)
    sample = first(size=(8, 16))
    assert sample["image"][:, 0, :3].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, torch.tensor(51 / 255).item()]]
    seg = torch.full((8, 16), -1)
    seg[1, :3] = torch.tensor([0, 13, 18])
    seg[7, 15] = 11
    assert torch.equal(sample["seg"], seg)
    ins = torch.full((2, 8, 16), torch.nan)
    ins[0, 2:4, 4:6] = torch.tensor([0.5, -0.5])
    ins[1, 2:4, 4:6] = torch.tensor([[0.5], [-0.5]])
    ins[:, 6, 9] = 0
    torch.testing.assert_close(sample["ins"], ins, equal_nan=True, rtol=0, atol=0)
    disp = torch.full((1, 8, 16), torch.nan)
    disp[0, 0, 1:5] = torch.tensor([0, 1, 20, 126])
    torch.testing.assert_close(sample["disp"], disp, equal_nan=True, rtol=0, atol=0)


def test_the_benchmark_s_classes_are_all_that_have_a_label(root):
    own = arrays()
    own["ids"].flat[:35] = [*range(34), 255]
    tree(root, first=own)
    found = first(size=(8, 16))["seg"].flatten()[:35].tolist()
    assert found == [TRAIN_IDS.get(number, -1) for number in (*range(34), 255)]


def test_objects_are_what_is_counted(root):
    own = arrays()
    own["instances"].flat[:35] = 1000 * np.arange(35, dtype=np.uint16) * (np.arange(35) < 34) + 5
    tree(root, first=own)
    found = ~first(size=(8, 16))["ins"][0].flatten()[:34].isnan()
    assert found.nonzero().flatten().tolist() == [24, 25, 26, 27, 28, 31, 32, 33]


def test_lengths_in_pixels_shrink_with_the_image(root):
    own = arrays((16, 32))
    own["instances"][4:12, 8:24] = 26001
    own["disparity"][:] = 1 + 256 * 20
    own["image"][:, ::2] = 200
    tree(root, (16, 32), own)
    sample = first(size=(8, 16))
    assert {name: tuple(tensor.shape[-2:]) for name, tensor in sample.items()} == dict.fromkeys(sample, (8, 16))
    assert sample["ins"][0, 3, 4:12].tolist() == [3.5, 2.5, 1.5, 0.5, -0.5, -1.5, -2.5, -3.5]
    assert sample["ins"][1, 2:6, 5].tolist() == [1.5, 0.5, -0.5, -1.5]
    assert (sample["disp"] == 10).all()
    # Stripes one pixel wide are grey, neither lost nor all that there is.
    torch.testing.assert_close(sample["image"][:, 2:-2, 2:-2], torch.full((3, 4, 12), 100 / 255), atol=0.01, rtol=0)
    (note,) = [note for note in Cityscapes3(size=(8, 16)).notes if "pixels" in note]
    assert "8 x 16" in note


def test_turned_and_mirrored_pixels_still_point_to_the_middle(root):
    own = arrays((64, 128))
    own["image"][20:40, 70:100] = 255
    own["image"][30:40, 70:80] = 0
    own["instances"][own["image"][..., 0] > 0] = 26001
    own["ids"][own["image"][..., 0] > 0] = 26
    tree(root, (64, 128), own)
    problem = Cityscapes3(size=(64, 128), split="paper")
    sample = problem.example("train", 0)
    sides = set()
    for seed in range(12):
        found = problem.fitted(problem.transformed(sample, torch.Generator().manual_seed(seed)))
        white = found["image"][0] > 0.5
        assert (found["seg"] == 13).logical_xor(white).float().mean() < 0.01
        assert torch.equal(found["ins"].isnan().any(0), found["seg"] != 13)
        rows, columns = (found["seg"] == 13).nonzero(as_tuple=True)
        dx, dy = found["ins"][:, rows, columns]
        # The nearest pixel is at most 0.7 away, and the middle of pixels moves by less.
        assert (columns + dx - columns.float().mean()).abs().max() < 1
        assert (rows + dy - rows.float().mean()).abs().max() < 1
        sides.add(bool(columns.float().mean() < 64))
    assert sides == {True, False}


def test_rates_are_the_reference_s(root):
    recipe = Cityscapes3().recipe
    rate, rates = 1e-4, []
    for epoch in range(1, 61):
        rates.append(rate)
        if epoch >= 40 and epoch % 3 == 0:
            rate *= 0.7
    assert [recipe.rate(epoch, ()) for epoch in range(60)] == pytest.approx(rates, rel=1e-12)
    assert (recipe.epochs, recipe.optimizer, recipe.weight_decay, recipe.clip) == (60, "adam", 0, 0)


def test_splits_are_those_of_the_folders(root):
    save(root, "train", "aachen", 7, **arrays())
    for frame in range(11):
        save(root, "train", "bonn", frame, **arrays())
    save(root, "val", "ulm", 0, **arrays())
    problem = Cityscapes3(size=(8, 16))
    assert {split: len(names) for split, names in problem.samples.items()} == {"train": 11, "test": 1, "val": 1}
    assert not set(problem.samples["train"]) & set(problem.samples["val"])
    assert problem.samples["test"] == ["ulm/ulm_000000_000019"]
    assert problem.notes[0] == "Non-standard split of cityscapes3: 12 of 2975 for train, 1 of 500 for test."
    assert problem.splits == ("train", "val", "test")
    paper = Cityscapes3(size=(8, 16), split="paper")
    assert (paper.splits, len(paper.samples["train"])) == (("train", "test"), 12)


def test_hidden_files_are_no_samples(root):
    tree(root)
    for path in list(root.rglob("*.png")):
        path.with_name(f"._{path.name}").touch()
        path.with_name(".DS_Store").touch()
    assert Cityscapes3().count("test") == 1
    assert len(Cityscapes3(split="paper").samples["train"]) == 2


@pytest.mark.parametrize("part", ["image", "ids", "instances", "disparity"])
def test_what_is_missing_is_named_with_the_layout(root, part):
    paths = tree(root)
    if part != "image":
        paths[part].unlink()
        missing = paths[part]
    else:
        missing = root / "leftImg8bit" / "val"
        (root / "leftImg8bit" / "val").rename(root / "elsewhere")
    with pytest.raises(IsonomyError) as caught:
        _ = Cityscapes3(size=(8, 16)).samples
    message = str(caught.value)
    assert f"{missing} is missing" in message
    assert "gtFine_instanceIds.png" in message
    assert "cityscapes-dataset.com" in message


@pytest.mark.parametrize(
    ("part", "values", "reason"),
    [
        ("image", None, "cannot identify|truncated"),
        ("disparity", None, "cannot identify|truncated"),
        ("ids", np.zeros((4, 16), dtype=np.uint8), "shape"),
        ("ids", np.full((8, 16), 40, dtype=np.uint8), "holds 40"),
        ("instances", np.zeros((8, 16), dtype=np.uint8), "8 bits, and 16 are wanted"),
        ("disparity", np.zeros((8, 16), dtype=np.uint8), "8 bits, and 16 are wanted"),
        ("image", np.zeros((8, 16), dtype=np.uint16), "8 bits are wanted"),
        ("instances", np.full((8, 16), 34000, dtype=np.uint16), "holds 34000"),
        ("disparity", np.zeros((8, 16, 3), dtype=np.uint8), "shape"),
    ],
)
def test_a_damaged_file_is_named_with_its_sample(root, part, values, reason):
    path = tree(root)[part]
    if values is None:
        path.write_bytes(path.read_bytes()[:40])
    else:
        Image.fromarray(values).save(path)
    with pytest.raises(IsonomyError, match=reason) as caught:
        first(size=(8, 16))
    assert f"{path} (sample 0) is damaged" in str(caught.value)


def test_nothing_is_read_before_it_is_needed(monkeypatch):
    monkeypatch.delenv("ISONOMY_DATA", raising=False)
    problem = data.load("cityscapes3:size=64x128")
    assert [(task.name, [metric.name for metric in task.metrics]) for task in problem.tasks] == [
        ("seg", ["mIoU"]),
        ("ins", ["L1"]),
        ("disp", ["L1"]),
    ]
    assert problem.backbones[0] == "resnet50_pyramid"
    with pytest.raises(IsonomyError, match="--data-root"):
        _ = problem.samples


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (4, 16)}, "Option size of cityscapes3 is 4x16"),
        ({"size": (1024, 4096)}, "Option size of cityscapes3 is 1024x4096"),
        ({"size": (8, 8, 8)}, "Option size of cityscapes3 is 8x8x8"),
        ({"split": "all"}, "split of cityscapes3"),
        ({"batch_size": 0}, "batch_size of cityscapes3"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(IsonomyError, match=message):
        Cityscapes3(**options)


def test_the_stand_in_can_be_trained_on_and_judged(root):
    stand_ins.write("cityscapes3", root, (64, 128))
    problem = data.load("cityscapes3:size=64x128,batch_size=2")
    names = [task.name for task in problem.tasks]
    torch.manual_seed(0)
    network = problem.network(Design("hps", "unet"), names, 0)
    (batch, *_) = list(problem.batches(0, 0, "cpu"))
    found = problem.losses(network, batch, names).losses
    torch.stack(list(found.values())).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    # Numbers in pixels cost more than classes do: the imbalance that this benchmark is about.
    assert found["ins"] > found["disp"] > 0
    network.eval()
    values = problem.evaluate(network, names, "test")
    assert 0 <= values["seg"]["mIoU"] <= 100
    assert values["ins"]["L1"] > 0
    assert values["disp"]["L1"] > 0
    pictures = problem.pictures(network, names)
    assert {picture.shape for picture in pictures.values()} == {(64, 128, 3)}
    assert all(0 < pictures[f"0-{name}-truth"].mean() < 255 for name in names)


def test_without_augmentation_training_images_are_as_on_disk(root):
    stand_ins.write("cityscapes3", root, (64, 128), {"train": 2, "val": 0, "test": 1})
    plain = Cityscapes3(size=(64, 128), split="paper", batch_size=2, augment=False)
    (batch,) = plain.batches(0, 0, "cpu")
    known = {tuple(plain.example("train", i)["image"].flatten()[:99].tolist()) for i in range(2)}
    assert {tuple(image.flatten()[:99].tolist()) for image in batch["image"]} == known
    changed = Cityscapes3(size=(64, 128), split="paper", batch_size=2)
    (batch,) = changed.batches(0, 0, "cpu")
    assert not {tuple(image.flatten()[:99].tolist()) for image in batch["image"]} & known


def test_processes_that_start_afresh_read_the_same(root):
    stand_ins.write("cityscapes3", root, (64, 128))
    problem = data.load("cityscapes3:size=64x128")
    again = pickle.loads(pickle.dumps(problem))
    assert again.samples == problem.samples
    one, other = problem.read("test", np.arange(2)), again.read("test", np.arange(2))
    for tensor, same in zip(one.values(), other.values(), strict=True):
        torch.testing.assert_close(tensor, same, rtol=0, atol=0, equal_nan=True)
