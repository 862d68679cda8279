import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from isonomy import IsonomyError
from isonomy.bench import choice, data
from isonomy.bench.architectures import Design
from isonomy.bench.architectures.output import Output
from isonomy.bench.data import celeba, stand_ins
from isonomy.bench.options import name_of
from tests.bench import tiny

NAMES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young"
)
SPLITS = (0, 0, 1, 2, 0, 2, 1, 0)
SMALL = "celeba:size=32x32,batch_size=2"


def has(image, attribute):
    """Whether the hand-made image has the attribute: a pattern in which no two columns or rows are alike."""
    return (image * image + 3 * attribute + image * attribute) % 7 < 3 or attribute == image


def line(image):
    return f"{image + 1:06d}.jpg " + " ".join(" 1" if has(image, k) else "-1" for k in range(40))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    return tmp_path / "celeba"


@pytest.fixture(params=["flat", "folders"])
def tree(request, root):
    """Eight faces, by hand, in both layouts."""
    folders = ("Img", "Anno", "Eval") if request.param == "folders" else (".", ".", ".")
    images, labels, partition = (root / folder for folder in folders)
    for folder in (images / "img_align_celeba", labels, partition):
        folder.mkdir(parents=True, exist_ok=True)
    for image in range(8):
        path = images / "img_align_celeba" / f"{image + 1:06d}.jpg"
        Image.new("RGB", (178, 218), (30 * image, 0, 100)).save(path)
    (labels / "list_attr_celeba.txt").write_text(f"8\n{NAMES} \n" + "".join(line(i) + "\n" for i in range(8)))
    lines = [f"{image + 1:06d}.jpg {split}\n" for image, split in enumerate(SPLITS)]
    (partition / "list_eval_partition.txt").write_text("".join(lines))
    return root


def find(tree, name):
    (path,) = tree.rglob(name)
    return path


def numbers(problem, split):
    return [int(name[:6]) - 1 for name in problem.samples[split]]


def test_faces_and_attributes_are_those_on_disk(tree):
    problem = data.load("celeba")
    assert [task.name for task in problem.tasks] == NAMES.lower().split()
    assert problem.splits == ("train", "val", "test")
    for number, split in enumerate(problem.splits):
        own = [image for image in range(8) if SPLITS[image] == number]
        assert numbers(problem, split) == own
        assert problem.count(split) == len(own)
        for index, image in enumerate(own):
            sample = problem.example(split, index)
            assert sample["image"].shape == (3, 64, 64)
            shade = torch.tensor([30.0 * image, 0.0, 100.0])[:, None, None] / 255
            assert (sample["image"] - shade).abs().max() < 0.02
            assert sample["label"].tolist() == [int(has(image, k)) for k in range(40)]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_visit_every_face_once_in_the_epochs_order(tree, workers):
    problem = data.load(f"{SMALL},workers={workers}")

    def seen(epoch):
        batches = list(problem.batches(0, epoch, "cpu"))
        assert [batch.images.shape for batch in batches] == [(2, 3, 32, 32)] * 2
        images = [round(float(image[0].mean()) * 255 / 30) for batch in batches for image in batch.images]
        labels = torch.cat([batch.labels for batch in batches]).tolist()
        assert labels == [[int(has(image, k)) for k in range(40)] for image in images]
        return images

    orders = [seen(epoch) for epoch in range(4)]
    assert all(sorted(order) == [0, 1, 4, 7] for order in orders)
    assert len(set(map(tuple, orders))) > 1
    assert seen(0) == orders[0]


def test_the_papers_split_tests_on_the_validation_images(tree):
    problem = data.load("celeba:split=paper")
    assert problem.splits == ("train", "test") == tuple(problem.samples)
    assert numbers(problem, "test") == [2, 6]
    assert problem.recipe.select == "last"
    assert data.load("celeba").recipe.select == "best_val"
    assert problem.notes == ("Non-standard split of celeba: 4 of 162770 for train, 2 of 19867 for test.",)
    assert problem.images == {"train": 162_770, "test": 19_867}
    (note,) = data.load("celeba").notes
    assert note.endswith("4 of 162770 for train, 2 of 19867 for val, 2 of 19962 for test.")
    with pytest.raises(IsonomyError, match="no split 'val'"):
        problem.count("val")
    with pytest.raises(IsonomyError, match="did you mean 'paper'"):
        data.load("celeba:split=papers")


class Says(nn.Module):
    """Gives every face the same logits, one an attribute."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        feature = images.mean((2, 3))
        every = self.logits.expand(len(images), 40)
        return Output(feature, {name: every[:, [k]] for k, name in enumerate(NAMES.lower().split())})


def test_losses_are_binary_cross_entropies():
    logits = np.linspace(-2, 3, 40)
    labels = np.array([[has(image, k) for k in range(40)] for image in range(5)])
    batch = celeba.Batch(torch.rand(5, 3, 8, 8), torch.from_numpy(labels).long())
    losses, feature, penalty = celeba.CelebA().losses(Says(logits), batch, ["young", "bald"])
    assert list(losses) == ["young", "bald"]
    for name, k in (("young", 39), ("bald", 4)):
        sure = 1 / (1 + np.exp(-logits[k]))
        expected = -np.where(labels[:, k], np.log(sure), np.log(1 - sure)).mean()
        assert losses[name].item() == pytest.approx(expected)
    assert feature.shape == (5, 3)
    assert penalty is None


@pytest.mark.parametrize("option", ["", ":balanced=true"])
def test_metrics_of_known_predictions(tree, monkeypatch, option):
    monkeypatch.setattr(celeba, "BLOCK", 3)
    problem = data.load(f"celeba{option}")
    model = Says([1.0 if k % 2 else -1.0 for k in range(40)])
    names = NAMES.lower().split()
    values = problem.evaluate(model, names, "train")
    assert model.seen == 4
    for k, name in enumerate(names):
        truth = [has(image, k) for image in (0, 1, 4, 7)]
        assert values[name]["accuracy"] == 100 * sum(each == k % 2 for each in truth) / 4
        if option and 0 < sum(truth) < 4:
            assert values[name]["balanced"] == 50
        elif option:
            assert np.isnan(values[name]["balanced"])
    assert [metric.name for metric in problem.tasks[0].metrics] == (
        ["accuracy", "balanced"] if option else ["accuracy"]
    )
    assert problem.tasks[3].score({"accuracy": 80.0, "balanced": 50.0}) == 0.8


def test_balanced_accuracy_is_the_mean_over_both_answers(tree):
    class Oracle(Says):
        def forward(self, images):
            wrong = images[:, 0].mean((1, 2)) > 0.6  # the brightest of the training faces, the last one
            logits = torch.stack([torch.tensor([1.0 if has(i, 8) else -1.0]) for i in (0, 1, 4, 7)])
            return Output(None, {"black_hair": torch.where(wrong[:, None], -logits, logits)})

    truth = [has(image, 8) for image in (0, 1, 4, 7)]
    assert truth.count(truth[-1]) in (1, 3)
    values = data.load("celeba:balanced=true").evaluate(Oracle([0.0] * 40), ["black_hair"], "train")["black_hair"]
    assert values == {"accuracy": 75.0, "balanced": 50.0 if truth.count(truth[-1]) == 1 else pytest.approx(250 / 3)}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", "8\n", "9\n", "announces 9 images and has 8"),
        ("list_attr_celeba.txt", "8\n", "<!DOCTYPE html>\n", r"begins with '<!DOCTYPE html>', not with the number"),
        ("list_attr_celeba.txt", "Young", "Old", "does not name the forty attributes"),
        (
            "list_attr_celeba.txt",
            line(2),
            line(2) + " 1",
            r"list_attr_celeba.txt \(sample 2\).*000003.jpg has not forty",
        ),
        ("list_attr_celeba.txt", line(1), line(1).replace(" -1", " 0 "), r"\(sample 1\)"),
        ("list_attr_celeba.txt", "000003.jpg", "000009.jpg", "000003.jpg has no line"),
        ("list_eval_partition.txt", "000002.jpg 0", "000002.jpg 3", r"partition.txt \(sample 1\).*'000002.jpg 3'"),
        ("list_eval_partition.txt", "000002.jpg 0", "000001.jpg 1", "000001.jpg is missing, or .* names it twice"),
        ("list_eval_partition.txt", " 1\n", " 2\n", "no image for split 'val'"),
    ],
)
def test_lists_that_cannot_be_followed_are_refused(tree, name, old, new, message):
    path = find(tree, name)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(IsonomyError, match=message):
        data.load("celeba").samples  # noqa: B018 - looking is what raises


def test_what_is_missing_or_damaged_is_named(tree):
    find(tree, "000007.jpg").write_bytes(b"<html>out of quota</html>")
    problem = data.load(SMALL)
    with pytest.raises(IsonomyError, match=r"000007.jpg \(sample 1\) is damaged \(it begins with b'<html>out of q"):
        problem.example("val", 1)
    find(tree, "000007.jpg").unlink()
    with pytest.raises(IsonomyError, match=r"000007.jpg is missing(.|\n)*Expected:(.|\n)*list_eval_partition.txt"):
        data.load("celeba").samples  # noqa: B018
    find(tree, "list_eval_partition.txt").unlink()
    with pytest.raises(IsonomyError, match=r"list_eval_partition.txt is missing"):
        data.load("celeba").samples  # noqa: B018
    find(tree, "list_attr_celeba.txt").unlink()
    with pytest.raises(IsonomyError, match=r"list_attr_celeba.txt is missing"):
        data.load("celeba").samples  # noqa: B018


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"PK\x03\x04", r"img_align_celeba.zip is: unpack it"),
        (b"<!DOCTYPE html>", r"no archive, as it begins with b'<!D"),
    ],
)
def test_an_archive_in_place_of_the_images_is_looked_at(root, start, message):
    root.mkdir()
    with pytest.raises(IsonomyError, match=r"img_align_celeba is missing\."):
        data.load("celeba").samples  # noqa: B018
    (root / "img_align_celeba.zip").write_bytes(start)
    with pytest.raises(IsonomyError, match=message):
        data.load("celeba").samples  # noqa: B018


def test_forty_heads_share_a_feature_of_512():
    problem = data.load("celeba")
    design = choice.design({}, problem)
    assert name_of(design.backbone) == "resnet18_pooled"
    with torch.device("meta"):
        network = problem.network(design, [task.name for task in problem.tasks], 0)
        output = network.eval()(torch.zeros(2, 3, 64, 64))
    assert output.feature.shape == (2, 512)
    assert {prediction.shape for prediction in output.predictions.values()} == {(2, 1)}
    plain = Design("hps", "resnet18_pooled:hidden=0")
    with torch.device("meta"):
        assert sum(p.numel() for p in problem.network(plain, ["bald"], 0).parameters()) == 11_176_512 + 513


def test_a_stand_in_is_trained_on_at_the_feature(root):
    stand_ins.write("celeba", root, (24, 20), {"train": 6, "val": 2, "test": 4})
    with Image.open(root / "img_align_celeba" / "000001.jpg") as picture:
        assert (picture.size, picture.format) == ((20, 24), "JPEG")
    problem = data.load(SMALL)
    assert [problem.count(split) for split in problem.splits] == [6, 2, 4]
    trainer = tiny.trainer("imtl", problem, data=problem.name, level="features")
    for batches in trainer.begin(0):
        losses = trainer.step(batches)
        assert losses.shape == (40,)
        assert losses.isfinite().all()
    # Every second face has what the one before has not, so who says the same of all is right of half of them.
    values = problem.evaluate(Says([1.0] * 40), [task.name for task in problem.tasks], "test")
    assert all(value == {"accuracy": 50.0} for value in values.values())


def test_the_stand_in_has_the_real_size(root):
    stand_ins.write("celeba", root)
    with Image.open(root / "img_align_celeba" / "000001.jpg") as picture:
        assert picture.size == (178, 218)
