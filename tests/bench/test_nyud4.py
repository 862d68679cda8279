import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from isonomy.bench import data
from isonomy.bench.architectures.output import Output
from isonomy.bench.data import stand_ins
from isonomy.bench.data.nyud4 import Nyud4
from isonomy.bench.recipe import Recipe
from isonomy.errors import IsonomyError

HEIGHT, WIDTH = 4, 6
SEG = np.array([[0, 1, 40, 5, 5, 5]] * HEIGHT, dtype=np.uint8)
DEPTH = np.linspace(0, 5.75, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
EDGE = np.eye(HEIGHT, WIDTH, dtype=np.uint8)
# The first two are as near to nothing as 8 bits are, the others -x, y and z.
BYTES = np.array([[[127, 127, 127], [128, 127, 128], [0, 127, 127], [127, 255, 128], [128, 127, 255], [204, 127, 230]]])
BYTES = np.repeat(BYTES, HEIGHT, axis=0).astype(np.uint8)
VECTORS = np.array([[[0, 0, 0], [0.02, 0, 0], [-1, 0, 0], [0, 0.5, 0], [0, 0, 1], [0.6, 0, 0.8]]])
VECTORS = np.repeat(VECTORS, HEIGHT, axis=0)


def tree(root, packaging, train=3, test=2):
    """A tree of the data set, written by hand."""
    for folder in ("gt_sets", "images", "segmentation", "depth", "normals", "edge"):
        (root / folder).mkdir(parents=True)
    lists = {"train": [f"0{i}" for i in range(train)], "val": [f"1{i}" for i in range(test)]}
    for split, names in lists.items():
        (root / "gt_sets" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image = np.full((HEIGHT, WIDTH, 3), (20 * int(name), 102, 255), dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / f"{name}{packaging}")
            Image.fromarray(SEG).save(root / "segmentation" / f"{name}.png")
            if packaging == ".png":
                np.save(root / "depth" / f"{name}.npy", DEPTH)
                Image.fromarray(BYTES).save(root / "normals" / f"{name}.png")
                Image.fromarray(255 * EDGE).save(root / "edge" / f"{name}.png")
            else:
                np.save(root / "depth" / f"{name}.npy", DEPTH.astype(np.float32)[..., None])
                np.save(root / "normals" / f"{name}.npy", VECTORS.astype(np.float32))
                np.save(root / "edge" / f"{name}.npy", EDGE.astype(np.float64))
    return root


@pytest.fixture(params=[".png", ".jpg"])
def packaging(request):
    return request.param


@pytest.fixture
def root(tmp_path, monkeypatch, packaging):
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    return tree(tmp_path / "nyud4", packaging)


def test_both_packagings_are_read(root, packaging):
    found = Nyud4(split="paper").example("train", 1)
    # What is compressed with loss is still of about its colours.
    colours = torch.tensor([20 / 255, 0.4, 1.0]).view(3, 1, 1).expand(3, HEIGHT, WIDTH)
    torch.testing.assert_close(found["image"], colours, rtol=0, atol=1e-6 if packaging == ".png" else 0.02)
    assert found["seg"].tolist() == [[-1, 0, 39, 4, 4, 4]] * HEIGHT
    torch.testing.assert_close(found["depth"], torch.from_numpy(DEPTH).float()[None])
    assert torch.equal(found["edge"], torch.from_numpy(EDGE).long())
    normal = found["normal"][:, 2].T
    expected = torch.tensor([[0, 0, 0], [0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0, 0.8]])
    torch.testing.assert_close(normal, expected, rtol=0, atol=1e-6 if packaging == ".jpg" else 0.006)
    lengths = found["normal"].norm(dim=0)
    torch.testing.assert_close(lengths[:, 2:], torch.ones(HEIGHT, 4))
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "image": torch.float32, "seg": torch.int64, "depth": torch.float32, "normal": torch.float32,
        "edge": torch.int64,
    }  # fmt: skip


def test_as_in_invpt_every_pixel_of_a_picture_is_a_normal(root, packaging):
    normal = Nyud4(compat="invpt").example("train", 0)["normal"][:, 0].T
    if packaging == ".jpg":  # where there is a zero it is none for InvPT, too, but nothing else is
        assert normal[0].tolist() == [0, 0, 0]
    else:
        torch.testing.assert_close(normal[0], torch.full((3,), -(3**-0.5)))
        torch.testing.assert_close(normal[1], torch.tensor([1.0, -1.0, 1.0]) / 3**0.5)
    with pytest.raises(IsonomyError, match=r"compat of nyud4.*'mtan'"):
        Nyud4(compat="mtan")


def test_the_lists_say_which_image_is_for_what(root):
    paper, honest = Nyud4(split="paper"), Nyud4()
    assert paper.samples == {"train": ["00", "01", "02"], "test": ["10", "11"]}
    assert paper.splits == ("train", "test")
    assert honest.splits == ("train", "val", "test")
    assert sorted(honest.samples["train"] + honest.samples["val"]) == paper.samples["train"]
    assert len(honest.samples["val"]) == 1
    assert honest.samples["test"] == paper.samples["test"]
    # The images tell their names.
    assert [round(255 / 20 * float(honest.example("test", i)["image"][0].mean())) for i in range(2)] == [10, 11]
    assert honest.notes == ("Non-standard split of nyud4: 3 of 795 for train, 2 of 654 for test.",)


def test_the_first_file_that_is_missing_is_named_below_the_expected_tree(root, packaging):
    label = ".png" if packaging == ".png" else ".npy"
    files = {"images": packaging, "segmentation": ".png", "depth": ".npy", "normals": label, "edge": label}
    for folder, ending in files.items():
        path = root / folder / f"02{ending}"
        aside = path.rename(root / "aside")
        with pytest.raises(IsonomyError, match=rf"{folder}/02\{ending} is missing\. (.|\n)*gt_sets/train\.txt"):
            _ = Nyud4().samples
        aside.rename(path)
    (root / "gt_sets" / "val.txt").unlink()
    with pytest.raises(IsonomyError, match=r"gt_sets/val\.txt is missing"):
        _ = Nyud4().samples


def test_without_images_or_names_something_is_missing(root, packaging):
    (root / "images" / f"00{packaging}").unlink()
    with pytest.raises(IsonomyError, match=rf"images/00\{packaging} is missing"):
        _ = Nyud4().samples
    (root / "gt_sets" / "train.txt").write_text("\n")
    with pytest.raises(IsonomyError, match=r"no image for split 'train'"):
        _ = Nyud4(split="paper").samples


def spoilt(values, value):
    changed = values.copy()
    changed[(0,) * changed.ndim] = value
    return changed


@pytest.mark.parametrize("packaging", [".png"], indirect=True)
@pytest.mark.parametrize(
    ("folder", "values", "told"),
    [
        ("segmentation", spoilt(SEG, 41), "it holds 41"),
        ("segmentation", SEG[:, 1:], r"its shape is \(4, 5\), its image wants \(4, 6\)"),
        ("depth", spoilt(DEPTH, -0.5), "a depth is -0.5"),
        ("depth", spoilt(DEPTH, np.inf), "not finite"),
        ("depth", DEPTH.T, r"its shape is \(6, 4\)"),
        ("normals", BYTES[..., 0], r"its image wants \(4, 6, 3\)"),
        ("edge", EDGE, "it holds 1, which is none of 0, …, 255"),
    ],
)
def test_damaged_files_are_named_with_their_sample(root, folder, values, told):
    path = root / folder / ("11.npy" if folder == "depth" else "11.png")
    if folder == "depth":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    with pytest.raises(IsonomyError, match=rf"{folder}/11\.\w+ \(sample 1\) is damaged \(.*{told}"):
        Nyud4().example("test", 1)


@pytest.mark.parametrize("packaging", [".png"], indirect=True)
def test_no_image_is_trained_on_and_tested(root, packaging):
    (root / "gt_sets" / "val.txt").write_text("10\n11\n02\n")
    with pytest.raises(IsonomyError, match=r"the lists in .*gt_sets name 02 twice"):
        _ = Nyud4().samples


@pytest.mark.parametrize("packaging", [".png"], indirect=True)
def test_edges_may_have_a_single_bit(root, packaging):
    Image.fromarray(EDGE == 1).save(root / "edge" / "10.png")
    assert torch.equal(Nyud4().example("test", 0)["edge"], torch.from_numpy(EDGE).long())


@pytest.mark.parametrize("packaging", [".jpg"], indirect=True)
@pytest.mark.parametrize(
    ("folder", "values", "told"),
    [("edge", 255 * EDGE, "it holds 255"), ("normals", 127 * (VECTORS + 1), "a component is 2")],
)
def test_arrays_in_other_units_are_damaged(root, folder, values, told):
    np.save(root / folder / "00.npy", values)
    with pytest.raises(IsonomyError, match=rf"{folder}/00\.npy \(sample 0\) is damaged \({told}"):
        Nyud4(split="paper").example("train", 0)


def test_files_that_end_too_early_are_damaged(root, packaging):
    label = ".png" if packaging == ".png" else ".npy"
    names = {"images": packaging, "segmentation": ".png", "depth": ".npy", "normals": label, "edge": label}
    for folder, ending in names.items():
        path = root / folder / f"10{ending}"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) - 40])
        with pytest.raises(IsonomyError, match=rf"{folder}/10\{ending} \(sample 0\) is damaged"):
            Nyud4().example("test", 0)
        path.write_bytes(whole)
    Nyud4().example("test", 0)


def test_without_a_folder_it_can_be_listed_but_not_read(monkeypatch):
    monkeypatch.delenv("ISONOMY_DATA", raising=False)
    problem = data.load("nyud4:size=64x96,split=paper,compat=invpt")
    assert (problem.size, problem.split, problem.compat) == ((64, 96), "paper", "invpt")
    assert [task.name for task in problem.tasks] == ["seg", "depth", "normal", "edge"]
    assert [[metric.name for metric in task.metrics] for task in problem.tasks] == [
        ["mIoU"],
        ["RMSE"],
        ["mErr"],
        ["odsF"],
    ]
    assert [task.outputs for task in problem.tasks] == [40, 1, 3, 1]
    assert problem.recipe == Recipe(100, 1e-4, "poly", "adam", 1e-4, 0, "best_val")
    assert (problem.batch_size, Nyud4().size, problem.backbones[0]) == (6, (448, 576), "resnet18")
    with pytest.raises(IsonomyError, match="--data-root"):
        _ = problem.samples


def test_edges_are_judged_as_published():
    edge = Nyud4().tasks[3].judge(True)
    assert (edge.tolerance, edge.unit, edge.nms, edge.convert) == (0.011, "diagonal", True, True)
    assert (len(edge.thresholds), edge.thresholds[0], edge.thresholds[-1]) == (101, 0.001, 0.999)
    assert len(Nyud4().tasks[3].judge(False).thresholds) == 9


def test_normals_cost_the_absolute_error_a_pixel():
    truth = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).repeat(1, 1, 2, 2)
    truth[..., 0, 0] = 0
    prediction = torch.tensor([3.0, 0.0, 4.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(Nyud4().tasks[2].loss(prediction, truth), torch.tensor(0.6 + 0.2))


def test_scaling_and_mirroring_keep_to_the_geometry():
    normal = torch.tensor([0.6, 0.0, 0.8]).view(3, 1, 1).expand(3, 20, 30)
    marks = {name: torch.ones(20, 30, dtype=torch.long) for name in ("seg", "edge")}
    sample = {"image": torch.rand(3, 20, 30), "depth": torch.full((1, 20, 30), 2.0), "normal": normal, **marks}
    problem, faced, factors = Nyud4(size=(64, 64)), set(), []
    for seed in range(8):
        found = problem.fitted(problem.transformed(sample, torch.Generator().manual_seed(seed)))
        inside = found["edge"] == 1
        faced |= {round(x, 3) for x in found["normal"][0, inside].tolist()}
        factors.append(float(inside.any(1).sum() / 20))
        # The image is as large as the scale, rounded to pixels, and what is twice as large is half as far.
        torch.testing.assert_close(
            found["depth"][0, inside], torch.full((int(inside.sum()),), 2 / factors[-1]), rtol=0.06, atol=0
        )
        assert (found["seg"] == torch.where(inside, 1, -1)).all()
        assert (found["edge"] == torch.where(inside, 1, 255)).all()
    assert faced == {-0.6, 0.6}
    assert min(factors) < 0.8
    assert max(factors) > 1.4


class Oracle(nn.Module):
    """Knows the labels of the images that it will be shown."""

    def __init__(self, batches):
        super().__init__()
        self.batches, self.anything = iter(batches), nn.Parameter(torch.zeros(()))

    def forward(self, x):
        batch = next(self.batches)
        assert torch.equal(batch["image"], x)
        seg = nn.functional.one_hot(batch["seg"].clamp_min(0), 40).movedim(-1, 1).float()
        edge = 20.0 * (batch["edge"] == 1) - 10
        return Output(None, {"seg": seg, "depth": batch["depth"], "normal": batch["normal"], "edge": edge[:, None]}, ())


def test_a_network_that_knows_everything_is_perfect_on_a_stand_in(tmp_path, monkeypatch):
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    stand_ins.write("nyud4", tmp_path / "nyud4", (112, 144), {"train": 2, "val": 1, "test": 3})
    problem = Nyud4(size=(128, 160), batch_size=2)
    chunks = [np.array([0, 1]), np.array([2])]
    model = Oracle([problem.read("test", chunk) for chunk in chunks])
    found = problem.evaluate(model, [task.name for task in problem.tasks], "test")
    assert found["seg"]["mIoU"] == 100
    assert found["depth"]["RMSE"] == pytest.approx(0)
    assert found["normal"]["mErr"] == pytest.approx(0, abs=1e-4)
    # The rim is faded, so it is never perfect.
    assert found["edge"]["odsF"] > 85


def test_training_batches_are_of_one_size_and_do_not_depend_on_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    stand_ins.write("nyud4", tmp_path / "nyud4", (64, 80), {"train": 3, "val": 1, "test": 1})
    batches = {
        (workers, augment): list(
            Nyud4(size=(72, 88), batch_size=3, workers=workers, augment=augment).batches(0, 0, "cpu")
        )
        for workers, augment in ((0, True), (1, True), (0, False))
    }
    ((own,), (other,), (plain,)) = batches.values()
    assert {name: tuple(tensor.shape) for name, tensor in own.items()} == {
        "image": (3, 3, 72, 88), "seg": (3, 72, 88), "depth": (3, 1, 72, 88), "normal": (3, 3, 72, 88),
        "edge": (3, 72, 88),
    }  # fmt: skip
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert not torch.equal(own["image"], plain["image"])
    losses = {task.name: task.loss(torch.ones(3, task.outputs, 9, 11), own[task.name]) for task in Nyud4().tasks}
    assert all(loss > 0 and loss.isfinite() for loss in losses.values())
