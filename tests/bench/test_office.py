from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from isonomy import IsonomyError
from isonomy.bench import choice, data
from isonomy.bench.architectures import Design
from isonomy.bench.data import stand_ins
from tests.bench import tiny

DOMAINS = ["amazon", "dslr", "webcam"]
SMALL = "office31:size=32x32,batch_size=2"
COUNTS = {"mug": 10, "bike": 7, "pen": 5}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    return tmp_path / "office31"


def colour(path, shade=(0, 0, 0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), shade).save(path)
    return path


@pytest.fixture
def tree(root):
    """Three classes; the images of a class are dark, brighter, brightest in its three domains."""
    for domain in DOMAINS:
        for name, count in COUNTS.items():
            for i in range(count):
                colour(root / domain / "images" / name / f"frame_{i:04d}.jpg", (80 * DOMAINS.index(domain),) * 3)
    return root


def lists(root, **changed):
    """LibMTL's lists by hand: each domain trains on two mugs, and has one for validation and a bike for testing."""
    for domain in DOMAINS:
        below = f"{domain}/images"
        contents = {
            "train": f"{below}/mug/frame_0001.jpg 22\n{below}/mug/frame_0000.jpg 22\n",
            "val": f"{below}/mug/frame_0002.jpg 22\n",
            "test": f"{below}/bike/frame_0003.jpg 27",
        }
        for split, content in contents.items():
            (root / f"{domain}_{split}.txt").write_text(changed.get(f"{domain}_{split}", content))


def test_without_lists_every_class_of_every_domain_is_dealt_60_20_20(tree):
    (tree / "dslr" / "images" / "mug" / "Thumbs.db").write_bytes(b"x")
    (tree / "dslr" / "images" / "mug" / "._frame_0001.jpg").write_bytes(b"x")
    problem = data.load("office31")
    found = {split: [Path(name) for name in names] for split, names in problem.samples.items()}
    for domain in DOMAINS:
        for name, count in COUNTS.items():
            own = {
                split: [p.name for p in paths if p.parts[:3] == (domain, "images", name)]
                for split, paths in found.items()
            }
            sizes = [len(files) for files in own.values()]
            assert sizes == [6 * count // 10, 2 * count // 10, count - 6 * count // 10 - 2 * count // 10]
            assert sorted(chain.from_iterable(own.values())) == [f"frame_{i:04d}.jpg" for i in range(count)]
    assert data.load("office31").samples == problem.samples
    # Nobody trains on the first files of every class and is tested on the last ones.
    mugs = [p.name for p in found["test"] if p.parts[2] == "mug"]
    assert mugs != [f"frame_{i:04d}.jpg" for i in (8, 9)] * 3
    assert len(set(mugs)) > 2


def test_a_class_is_dealt_alike_whatever_else_there_is(tree):
    before = [name for name in data.load("office31").samples["test"] if "mug" in name]
    for domain in DOMAINS:
        for i in range(5):
            colour(tree / domain / "images" / "another" / f"frame_{i:04d}.jpg")
    assert [name for name in data.load("office31").samples["test"] if "mug" in name] == before


def test_samples_are_the_images_and_their_classes_as_they_lie(tree):
    problem = data.load("office31")
    for index, name in enumerate(problem.samples["val"]):
        sample = problem.example("val", index)
        domain, _, thing, _ = Path(name).parts
        assert sample["label"] == ["bike", "mug", "pen"].index(thing)
        assert sample["image"].shape == (3, 224, 224)
        assert (sample["image"] - 80 * DOMAINS.index(domain) / 255).abs().max() < 0.01


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_hold_each_domains_own_images(tree, workers):
    problem = data.load(f"{SMALL},workers={workers}")
    batches = list(problem.batches(0, 0, "cpu"))
    assert len(batches) == (6 + 4 + 3) // 2
    for batch in batches:
        for shade, (images, labels) in enumerate(batch.values()):
            assert images.shape == (2, 3, 32, 32)
            assert labels.shape == (2,)
            assert (images - 80 * shade / 255).abs().max() < 0.01
    labels = [label for batch in batches for label in batch["dslr"].labels.tolist()]
    assert set(labels) == {0, 1, 2}  # of 13 images all but one
    assert labels != [label for batch in problem.batches(0, 1, "cpu") for label in batch["dslr"].labels.tolist()]


def test_lists_are_followed_to_the_letter(tree):
    lists(tree)
    problem = data.load(SMALL)
    assert problem.samples["train"][2:4] == ["dslr/images/mug/frame_0001.jpg", "dslr/images/mug/frame_0000.jpg"]
    assert problem.samples["test"] == [f"{domain}/images/bike/frame_0003.jpg" for domain in DOMAINS]
    assert [problem.count("webcam", split) for split in problem.splits] == [2, 1, 1]
    assert [int(problem.example(split, 1)["label"]) for split in problem.splits] == [22, 22, 27]
    assert next(problem.batches(0, 0, "cpu"))["amazon"].labels.tolist() == [22, 22]


def test_the_papers_have_as_many_images_as_their_lists():
    assert data.load("office31").images == {"train": 2433, "val": 790, "test": 887}
    assert sum(data.load("officehome").images.values()) == 2427 + 4365 + 4439 + 4357


def test_notes_say_what_is_not_as_in_the_papers(tree):
    (dealt, own) = data.load("office31").notes
    assert dealt.startswith("Non-standard split of office31: 13 of 1680 for train of amazon, ")
    assert "4 of 89 for val of dslr" in dealt
    assert "Isonomy's own" in own
    lists(tree)
    (note,) = data.load("office31").notes
    assert "2 of 287 for train of dslr" in note


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dslr_val": "amazon/images/mug/frame_0002.jpg 22"}, r"dslr_val.txt \(sample 0\) .* no path in dslr"),
        ({"dslr_val": "\ndslr/images/mug/frame_0002.jpg 31"}, r"dslr_val.txt \(sample 0\) .* class from 0 to 30"),
        (
            {"dslr_val": "dslr/images/mug/frame_0002.jpg 3\ndslr/images/mug/frame_0004.jpg"},
            r"dslr_val.txt \(sample 1\)",
        ),
        ({"dslr_val": "dslr/images/mug/frame_0099.jpg 3"}, r"frame_0099.jpg is missing, which .*dslr_val.txt names"),
        ({"dslr_val": "dslr/images/mug/frame_0001.jpg 22"}, r"name dslr/images/mug/frame_0001.jpg twice"),
        ({"dslr_val": "\n"}, r"domain 'dslr' has no image for split 'val'"),
    ],
)
def test_lists_that_cannot_be_followed_are_refused(tree, changed, message):
    lists(tree, **changed)
    with pytest.raises(IsonomyError, match=message):
        data.load("office31").samples  # noqa: B018 - looking is what raises


def test_a_wrong_tree_is_refused_with_its_first_missing_path(tree, monkeypatch):
    lists(tree)
    (tree / "dslr_val.txt").unlink()
    with pytest.raises(
        IsonomyError, match=r"dslr_val.txt is missing, while other lists are there(.|\n)*frame_0001.jpg"
    ):
        data.load("office31").samples  # noqa: B018
    for path in tree.glob("*.txt"):
        path.unlink()
    (tree / "webcam" / "images" / "pen").rename(tree / "pen")
    with pytest.raises(IsonomyError, match=r"webcam/images/pen is missing\."):
        data.load("office31").samples  # noqa: B018
    (tree / "dslr" / "images").rename(tree / "dslr" / "pictures")
    with pytest.raises(IsonomyError, match=r"dslr/images is missing\."):
        data.load("office31").samples  # noqa: B018
    monkeypatch.delenv("ISONOMY_DATA")
    with pytest.raises(IsonomyError, match=r"'office31'.*--data-root(.|\n)*amazon/images"):
        data.load("office31").samples  # noqa: B018


def test_more_classes_than_the_network_tells_apart_are_refused(tree):
    for i in range(29):
        for domain in DOMAINS:
            (tree / domain / "images" / f"thing_{i}").mkdir()
    with pytest.raises(IsonomyError, match="folders of 32 classes, not of 31"):
        data.load("office31").samples  # noqa: B018


def test_too_few_images_of_a_class_for_every_split_are_refused(root):
    for domain in DOMAINS:
        for i in range(4):
            colour(root / domain / "images" / "mug" / f"{i}.jpg")
    with pytest.raises(IsonomyError, match="domain 'amazon' has no image for split 'val'"):
        data.load("office31").samples  # noqa: B018


def test_a_damaged_image_is_named_with_its_place_among_the_samples(tree):
    lists(tree)
    (tree / "webcam" / "images" / "mug" / "frame_0000.jpg").write_bytes(b"<html>")
    problem = data.load(SMALL)
    assert problem.samples["train"][5] == "webcam/images/mug/frame_0000.jpg"
    with pytest.raises(IsonomyError, match=r"webcam/images/mug/frame_0000.jpg \(sample 5\) is damaged"):
        next(problem.batches(0, 0, "cpu"))["webcam"]


@pytest.mark.parametrize("folder", ["Real World", "Real_World"])
@pytest.mark.parametrize("listed", [False, True])
def test_office_home_may_have_a_space(tmp_path, monkeypatch, folder, listed):
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    for domain in ("Art", "Clipart", "Product", folder):
        for i in range(5):
            colour(tmp_path / domain / "Mug" / f"{i:05d}.jpg")
    if listed:
        for domain in ("Art", "Clipart", "Product", "Real_World"):
            for i, split in enumerate(("train", "val", "test")):
                (tmp_path / f"{domain}_{split}.txt").write_text(f"{domain}/Mug/{i:05d}.jpg 64\n")
    problem = data.load("officehome:size=32x32,batch_size=1")
    assert [task.name for task in problem.tasks] == ["art", "clipart", "product", "real_world"]
    assert problem.samples["test"][-1].startswith(f"{folder}/Mug/")
    assert next(problem.batches(0, 0, "cpu"))["real_world"].labels == (64 if listed else 0)


@pytest.mark.parametrize(("name", "parameters"), [("office31", 11_487_901), ("officehome", 11_573_572)])
def test_the_network_is_the_papers(name, parameters):
    problem = data.load(name)
    design = choice.design({}, problem)
    assert design == Design("hps", "resnet18_pooled")
    with torch.device("meta"):
        network = problem.network(design, [task.name for task in problem.tasks], 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("name", ["office31", "officehome", "celeba"])
def test_every_architecture_has_its_network(name):
    problem = data.load(name)
    for architecture in problem.architectures:
        design = choice.design({"architecture": architecture}, problem)  # which makes it, without its numbers
        assert set(choice.levels(problem, design)) >= {"parameters", "last_layer"}
        assert ("features" in choice.levels(problem, design)) == (name == "celeba" and architecture == "hps")
    with pytest.raises(IsonomyError, match="'mtan' does not fit data set"):
        choice.design({"architecture": "mtan"}, problem)


@pytest.mark.parametrize("name", ["office31", "officehome"])
def test_a_stand_in_is_trained_on_at_the_last_layer(tmp_path, monkeypatch, name):
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    stand_ins.write(name, tmp_path / name, (24, 32), {"train": 4, "val": 2, "test": 3})
    problem = data.load(f"{name}:size=32x32,batch_size=2")
    domains = len(problem.tasks)
    assert {split: len(names) for split, names in problem.samples.items()} == {
        "train": 4 * domains, "val": 2 * domains, "test": 3 * domains,
    }  # fmt: skip
    assert len(problem.notes) == 1  # on the counts: the splits are those of the lists
    trainer = tiny.trainer("imtl_g", problem, data=problem.name, level="last_layer")
    for batches in trainer.begin(0):
        assert np.isfinite(trainer.step(batches).numpy()).all()
    values = trainer.evaluate("test")
    assert list(values) == [task.name for task in problem.tasks]
    assert all(value["accuracy"] in (pytest.approx(100 * i / 3) for i in range(4)) for value in values.values())


def test_the_stand_in_has_pictures_of_the_real_size(root):
    stand_ins.write("office31", root, counts={"train": 1, "val": 1, "test": 1})
    with Image.open(root / "amazon" / "images" / "back_pack" / "frame_0001.jpg") as picture:
        assert picture.size == (300, 300)
        assert picture.format == "JPEG"
