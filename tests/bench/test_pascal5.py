from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from skimage.morphology import thin

from isonomy.bench import data
from isonomy.bench.data import stand_ins
from isonomy.bench.data.pascal5 import Pascal5, boundaries, lines
from isonomy.bench.data.pascal_indoors import INDOORS
from isonomy.bench.recipe import Recipe
from isonomy.errors import IsonomyError
from tests.bench.test_pascal_parts import matrix

HEIGHT, WIDTH = 6, 8
# A sofa and a television on the left, the sky and a tree on the right.
CATEGORIES = np.array([[368] * 2 + [427] * 2 + [360] * 2 + [420] * 2] * HEIGHT, dtype=np.uint16)
VOC, CONTEXT = (np.full((HEIGHT, WIDTH), value, dtype=np.uint8) for value in (18, 3))
VOC[0] = 255
SALIENCY = np.array([[0, 1, 126, 127, 128, 129, 254, 255]] * HEIGHT, dtype=np.uint8)
NORMALS = np.array([[[255, 127, 128], [127, 127, 128], [127, 0, 127], [0, 128, 128]] * 2] * HEIGHT, dtype=np.uint8)
HEADS = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
HEADS[2:4, 1:3] = 1


def annotation(person):
    parts = matrix([("hair", HEADS)], ("part_name", "mask"))
    rows = [("person", 15, HEADS, parts)] if person else []
    return {"anno": {"imname": "x", "objects": matrix(rows, ("class", "class_ind", "mask", "parts"))}}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A tree by hand: a train and a test image with a person, and a train image without; ``b`` has no map of VOC's."""
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "pascal5"
    for folder in (
        "ImageSets/Context", "JPEGImages", "pascal-context/trainval", "semseg/VOC12", "semseg/pascal-context",
        "human_parts", "normals_distill", "sal_distill",
    ):  # fmt: skip
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Context/train.txt").write_text("a\nb\n")
    (root / "ImageSets/Context/val.txt").write_text("c\n")
    for name in "abc":
        image = np.full((HEIGHT, WIDTH, 3), (51, 102, 204), dtype=np.uint8)
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=100)
        savemat(root / "pascal-context/trainval" / f"{name}.mat", {"LabelMap": CATEGORIES})
        savemat(root / "human_parts" / f"{name}.mat", annotation(name != "b"))
        Image.fromarray(NORMALS).save(root / "normals_distill" / f"{name}.png")
        Image.fromarray(SALIENCY).save(root / "sal_distill" / f"{name}.png")
        Image.fromarray(CONTEXT).save(root / "semseg/pascal-context" / f"{name}.png")
        if name != "b":
            with_palette = Image.fromarray(VOC, mode="P")
            with_palette.putpalette(list(range(256)) * 3)
            with_palette.save(root / "semseg/VOC12" / f"{name}.png")
    return root


def test_a_sample_is_read(root):
    found = Pascal5(split="paper").example("train", 0)
    colours = torch.tensor([0.2, 0.4, 0.8]).view(3, 1, 1).expand(3, HEIGHT, WIDTH)
    torch.testing.assert_close(found["image"], colours, rtol=0, atol=0.02)
    assert found["seg"].tolist() == [[-1] * WIDTH, *[[18] * WIDTH] * 5]
    assert torch.equal(found["parts"], torch.from_numpy(HEADS).long())
    assert found["sal"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]] * HEIGHT
    # Of the pixels on the left the second is too short to be a normal; on the right nothing indoors is seen.
    expected = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, -1, 0], [-1, 0, 0], *[[0, 0, 0]] * 4])
    torch.testing.assert_close(found["normal"][:, 3].T, expected, rtol=0, atol=0.006)
    torch.testing.assert_close(found["normal"].norm(dim=0)[0], torch.tensor([1.0, 0, 1, 1, 0, 0, 0, 0]))
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "image": torch.float32, "seg": torch.int64, "parts": torch.int64, "normal": torch.float32, "sal": torch.int64,
        "edge": torch.int64,
    }  # fmt: skip


def test_where_voc_has_no_map_the_other_one_is_read(root):
    assert Pascal5(split="paper").example("train", 1)["seg"].unique().tolist() == [3]


def test_invpt_takes_short_vectors_for_normals_but_keeps_to_what_is_indoors(root):
    valid = (Pascal5(compat="invpt").example("test", 0)["normal"] != 0).any(0)
    assert valid.tolist() == [[True] * 4 + [False] * 4] * HEIGHT
    assert [Pascal5(compat=compat).tasks[3].judge(True).compat for compat in ("invpt", "none")] == ["invpt", None]
    with pytest.raises(IsonomyError, match=r"compat of pascal5.*'mtan'"):
        Pascal5(compat="mtan")


def test_categories_indoors_are_those_of_the_sorted_list():
    # All categories are in alphabetical order, so a wrong number would be out of order.
    assert list(INDOORS) == sorted(INDOORS)
    assert all(one < next_ for one, next_ in pairwise(INDOORS.values()))
    known = {"bed": 18, "ceiling": 68, "chair": 72, "door": 115, "floor": 158, "person": 284, "sofa": 368, "table": 397,
             "tvmonitor": 427, "wall": 440, "window": 454}  # fmt: skip
    assert known.items() <= INDOORS.items()
    assert not {"sky": 360, "grass": 187, "tree": 420, "road": 324, "horse": 207}.items() & INDOORS.items()


def test_training_edges_are_thinned_laplacians():
    rng = np.random.default_rng(0)
    regions = np.kron(rng.choice([1, 5, 9, 300], size=(6, 7)), np.ones((9, 8), dtype=int))
    for categories in (regions, rng.integers(1, 5, size=(30, 40))):
        # The neighbours beyond the rim are those on this side of it.
        around = np.pad(categories, 1, mode="reflect")
        laplacian = around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:] - 4 * categories
        assert (laplacian != 0).sum() > 100
        np.testing.assert_array_equal(lines(categories), thin(laplacian != 0))
    # Between equal steps the Laplacian is 0.
    assert not lines(np.tile(np.arange(8), (6, 1)))[:, 2:6].any()


def test_edges_are_judged_where_categories_change():
    categories = CATEGORIES.astype(np.int64)
    assert np.flatnonzero(boundaries(categories)[2]).tolist() == [1, 3, 5]
    categories[5, 7] = 1
    assert boundaries(categories)[4:].sum(1).tolist() == [5, 4]


def test_train_and_val_have_the_lines_and_test_the_boundaries(root):
    problem = Pascal5()
    categories = CATEGORIES.astype(np.int64)
    trained, judged = (torch.from_numpy(find(categories)).long() for find in (lines, boundaries))
    assert not torch.equal(trained, judged)
    for split, expected in (("train", trained), ("val", trained), ("test", judged)):
        assert torch.equal(problem.example(split, 0)["edge"], expected)


def test_nothing_is_learnt_about_people_from_images_without_any(root):
    problem = Pascal5(size=(10, 12), split="paper")
    somebody, nobody = (problem.fitted(problem.example("train", index)) for index in range(2))
    assert (nobody["parts"] == -1).all()
    inside = somebody["parts"][2:8, 2:10]
    assert torch.equal(inside, torch.from_numpy(HEADS).long())
    assert (somebody["parts"] == -1).sum() == 10 * 12 - HEIGHT * WIDTH
    window = {name: tensor[..., 5:] for name, tensor in problem.example("train", 0).items()}
    assert (problem.fitted(window)["parts"] == -1).all()


def test_mirrored_surfaces_face_the_other_way():
    labels = {name: torch.ones(20, 30, dtype=torch.long) for name in ("seg", "parts", "sal", "edge")}
    normal = torch.tensor([0.6, 0.0, 0.8]).view(3, 1, 1).expand(3, 20, 30)
    sample = {"image": torch.rand(3, 20, 30), "normal": normal, **labels}
    problem, faced = Pascal5(size=(64, 64)), set()
    for seed in range(8):
        found = problem.fitted(problem.transformed(sample, torch.Generator().manual_seed(seed)))
        inside = found["edge"] == 1
        faced |= {round(x, 3) for x in found["normal"][0, inside].tolist()}
        for name, pad in (("seg", -1), ("parts", -1), ("sal", 255), ("edge", 255)):
            assert (found[name] == torch.where(inside, 1, pad)).all()
    assert faced == {-0.6, 0.6}


def test_the_lists_say_which_image_is_for_what(root):
    assert Pascal5(split="paper").samples == {"train": ["a", "b"], "test": ["c"]}
    honest = Pascal5()
    assert sorted(honest.samples["train"] + honest.samples["val"]) == ["a", "b"]
    assert honest.notes == ("Non-standard split of pascal5: 2 of 4998 for train, 1 of 5105 for test.",)


@pytest.mark.parametrize(
    "file",
    [
        "JPEGImages/b.jpg", "pascal-context/trainval/b.mat", "human_parts/b.mat", "normals_distill/b.png",
        "sal_distill/b.png", "semseg/pascal-context/b.png", "ImageSets/Context/val.txt",
    ],
)  # fmt: skip
def test_the_first_file_that_is_missing_is_named_below_the_expected_tree(root, file):
    (root / file).unlink()
    with pytest.raises(IsonomyError, match=rf"{file} is missing\. (.|\n)*pascal-context/trainval/NAME\.mat"):
        _ = Pascal5().samples


def test_a_map_of_vocs_in_another_format_is_none(root):
    (root / "semseg/VOC12/a.png").rename(root / "semseg/VOC12/a.bmp")
    (root / "semseg/pascal-context/a.png").unlink()
    with pytest.raises(IsonomyError, match=r"semseg/pascal-context/a\.png is missing"):
        _ = Pascal5().samples


def test_no_image_is_trained_on_and_tested(root):
    (root / "ImageSets/Context/val.txt").write_text("c\na\n")
    with pytest.raises(IsonomyError, match=r"the lists in .*ImageSets/Context name a twice"):
        _ = Pascal5().samples


def test_no_map_of_vocs_is_needed_where_there_is_the_other_one(root):
    for path in (root / "semseg/VOC12").iterdir():
        path.unlink()
    (root / "semseg/VOC12").rmdir()
    assert Pascal5(split="paper").example("train", 0)["seg"].unique().tolist() == [3]


@pytest.mark.parametrize(
    ("file", "values", "told"),
    [
        ("semseg/VOC12/c.png", np.where(VOC == 18, 21, VOC).astype(np.uint8), "it holds 21"),
        ("semseg/VOC12/c.png", VOC[:-1], r"its shape is \(5, 8\), its image wants \(6, 8\)"),
        ("normals_distill/c.png", SALIENCY, r"its shape is \(6, 8\), its image wants \(6, 8, 3\)"),
        ("sal_distill/c.png", NORMALS, r"its shape is \(6, 8, 3\)"),
        ("sal_distill/c.png", SALIENCY.astype(np.uint16) * 257, "it holds 257"),
        ("JPEGImages/c.jpg", NORMALS[:, 1:], None),
    ],
)
def test_damaged_files_are_named_with_their_sample(root, file, values, told):
    Image.fromarray(values).save(root / file)
    # Of an image of another size the labels are named.
    named, told = (file, told) if told else ("pascal-context/trainval/c.mat", r"its shape is \(6, 8\)")
    with pytest.raises(IsonomyError, match=rf"{named} \(sample 0\) is damaged \({told}"):
        Pascal5().example("test", 0)


def test_without_a_folder_it_can_be_listed_but_not_read(monkeypatch):
    monkeypatch.delenv("ISONOMY_DATA", raising=False)
    problem = data.load("pascal5:size=64x96,split=paper")
    assert [task.name for task in problem.tasks] == ["seg", "parts", "normal", "sal", "edge"]
    metrics = [[metric.name for metric in task.metrics] for task in problem.tasks]
    assert metrics == [["mIoU"], ["mIoU"], ["mErr"], ["maxF"], ["odsF"]]
    assert [task.outputs for task in problem.tasks] == [21, 7, 3, 2, 1]
    assert problem.recipe == Recipe(60, 1e-4, "poly", "adam", 1e-4, 0, "best_val")
    assert (problem.batch_size, Pascal5().size) == (6, (512, 512))
    edge = problem.tasks[4].judge(True)
    assert (edge.tolerance, edge.unit, edge.nms, edge.convert, len(edge.thresholds)) == (
        0.0075, "diagonal", True, False, 101,
    )  # fmt: skip
    with pytest.raises(IsonomyError, match="--data-root"):
        _ = problem.samples


def test_a_stand_in_has_all_labels_and_trains_in_batches(tmp_path, monkeypatch):
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path / "cache"))
    stand_ins.write("pascal5", tmp_path / "pascal5", (64, 80), {"train": 10, "val": 2, "test": 2})
    problem = Pascal5(size=(72, 88), batch_size=6)
    assert {split: len(names) for split, names in problem.samples.items()} == {"train": 11, "val": 1, "test": 2}
    (batch,) = problem.batches(0, 0, "cpu")
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "image": (6, 3, 72, 88), "seg": (6, 72, 88), "parts": (6, 72, 88), "normal": (6, 3, 72, 88),
        "sal": (6, 72, 88), "edge": (6, 72, 88),
    }  # fmt: skip
    (again,) = problem.batches(0, 0, "cpu")
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    samples = [problem.example("train", index) for index in range(11)]
    seen = {
        name: set(torch.cat([each[name].flatten() for each in samples]).tolist()) for name in ("seg", "parts", "sal")
    }
    assert {-1, 0, 9, 15} <= seen["seg"] <= {-1, 0, 9, 11, 15, 18, 20}
    assert {0, 1, 2, 5, 6} <= seen["parts"]
    assert seen["sal"] == {0, 1}
    for each in samples:
        assert torch.equal(each["parts"] > 0, each["seg"] == 15)
        assert (each["parts"] > 0).any()
        assert 0 < each["edge"].float().mean() < 0.3
        assert (each["normal"] != 0).any(0).float().mean() > 0.5
