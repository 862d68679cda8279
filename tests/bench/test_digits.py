import numpy as np
import torch
from sklearn.datasets import load_digits

from isonomy.bench import data
from isonomy.bench.architectures import Design
from isonomy.bench.data import digits


def test_sizes_ranges_and_shapes():
    for split, count in (("train", 12_000), ("val", 2_000), ("test", 3_000)):
        images, left, right = digits.samples(split)
        assert images.shape == (count, 1, 12, 12)
        assert images.dtype == torch.float32
        assert (images.min(), images.max()) == (0, 1)
        assert left.shape == right.shape == (count,)
        assert left.unique().tolist() == right.unique().tolist() == list(range(10))


def test_no_source_digit_is_in_two_splits():
    raw = load_digits().images
    found = {split: {image.tobytes() for image in digits.sources(split).images} for split in digits.SIZES}
    assert [len(digits.sources(split).images) for split in digits.SIZES] == [1077, 360, 360]
    assert not found["train"] & found["val"]
    assert not found["train"] & found["test"]
    assert not found["val"] & found["test"]
    everything = {(image / 16).astype(np.float32).tobytes() for image in raw}
    assert found["train"] | found["val"] | found["test"] == everything


def test_an_image_recomputed_by_hand():
    images, classes = digits.sources("val")
    for i in (0, 7, 1999):
        first, second = digits.pairs("val", 2_000)[i]
        canvas = [[0.0] * 12 for _ in range(12)]
        for row in range(8):
            for column in range(8):
                canvas[row][column] = float(images[first][row, column])
        for row in range(8):
            for column in range(8):
                at = canvas[row + 4]
                at[column + 4] = max(at[column + 4], float(images[second][row, column]))
        sample = digits.samples("val")
        assert torch.equal(sample.images[i, 0], torch.tensor(canvas))
        assert (sample.left[i], sample.right[i]) == (classes[first], classes[second])


def test_a_sample_does_not_depend_on_how_many_follow():
    assert (digits.pairs("train", 10) == digits.pairs("train", 1000)[:10]).all()
    assert (digits.pairs("train", 10) != digits.pairs("test", 10)).any()


def test_sum_is_in_units_around_the_middle():
    split = digits.Split(torch.zeros(2, 1, 12, 12), torch.tensor([9, 0]), torch.tensor([4, 1]))
    assert digits.target(split, "sum").tolist() == [1.0, -2.0]
    assert digits.target(split, "left").tolist() == [9, 0]
    assert digits.target(split, "right").tolist() == [4, 1]


def test_metrics_of_known_predictions():
    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(()))

        def forward(self, images):
            truth = digits.samples("test")
            wrong = (truth.right + 1) % 10
            wrong[:1500] = truth.right[:1500]
            total = (truth.left + truth.right).float()[:, None]
            one_hot = torch.nn.functional.one_hot
            return None, {
                "left": one_hot(truth.left, 10).float(),
                "right": one_hot(wrong, 10).float(),
                "sum": (total + 2 - digits.MIDDLE) / digits.UNIT,
            }

    values = data.load("digits").evaluate(Oracle(), ["left", "right", "sum"], "test")
    assert values["left"] == {"accuracy": 100.0}
    assert values["right"] == {"accuracy": 50.0}
    assert abs(values["sum"]["mae"] - 2) < 1e-5


def test_losses_are_scaled_as_the_page_says():
    problem = data.load("digits")
    model = problem.network(Design("hps"), ["left", "right", "sum"], 0)
    batch = next(problem.batches(0, 0, "cpu"))
    assert len(batch.left) == 128
    losses, feature, _ = problem.losses(model, batch, ["left", "right", "sum"])
    assert feature.shape == (128, 50)
    predictions = model(batch.images)[1]
    entropy = torch.nn.functional.cross_entropy(predictions["right"], batch.right)
    torch.testing.assert_close(losses["right"], 0.05 * entropy)
    error = predictions["sum"][:, 0] - (batch.left + batch.right - 9) / 4
    torch.testing.assert_close(losses["sum"], error.square().mean())
    assert list(problem.losses(model, batch, ["sum"])[0]) == ["sum"]


def test_parts_start_alike_in_single_and_multi_task_networks():
    problem = data.load("digits")
    multi = problem.network(Design("hps"), ["left", "right", "sum"], 3)
    for task in ("left", "right", "sum"):
        alone = problem.network(Design("hps"), [task], 3)
        for name, value in alone.state_dict().items():
            assert torch.equal(value, multi.state_dict()[name]), name
    other = problem.network(Design("hps"), ["left"], 4).state_dict()
    assert not torch.equal(other["encoder.0.weight"], multi.state_dict()["encoder.0.weight"])
    assert not torch.equal(multi.heads["left"].weight, multi.heads["right"].weight)


def test_every_sample_is_visited_once_an_epoch_in_a_repeatable_order():
    problem = data.load("digits")
    first = torch.cat([batch.images for batch in problem.batches(1, 0, "cpu")])
    assert torch.equal(first, torch.cat([batch.images for batch in problem.batches(1, 0, "cpu")]))
    assert first.sum().isclose(digits.samples("train").images.sum())
    assert len(first) == 12_000
    assert not torch.equal(first, torch.cat([batch.images for batch in problem.batches(1, 1, "cpu")]))


def test_twenty_questions_are_an_option():
    problem = data.load("digits:attributes=true")
    names = [task.name for task in problem.tasks]
    assert names == [f"{side}_is_{digit}" for side in ("left", "right") for digit in range(10)]
    assert problem.version == data.load("digits").version
    model = problem.network(Design("hps"), names, 0)
    batch = next(problem.batches(0, 0, "cpu"))
    losses, feature, _ = problem.losses(model, batch, names)
    assert feature.shape == (128, 50)
    predictions = model(batch.images)[1]
    for side in ("left", "right"):
        for digit in range(10):
            name = f"{side}_is_{digit}"
            truth = torch.tensor([int(label == digit) for label in getattr(batch, side).tolist()])
            assert torch.equal(digits.target(batch, name), truth)
            torch.testing.assert_close(losses[name], torch.nn.functional.cross_entropy(predictions[name], truth))


def test_to_deny_every_attribute_is_right_nine_times_in_ten():
    class No(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(()))

        def forward(self, images):
            return None, {name: torch.tensor([1.0, 0.0]).expand(len(images), 2) for name in digits.ATTRIBUTES}

    values = data.load("digits:attributes=true").evaluate(No(), ["left_is_3", "right_is_9"], "test")
    left, right = digits.samples("test")[1:]
    assert abs(values["left_is_3"]["accuracy"] - 100 * float((left != 3).double().mean())) < 1e-9
    assert abs(values["right_is_9"]["accuracy"] - 100 * float((right != 9).double().mean())) < 1e-9
    assert 85 < values["left_is_3"]["accuracy"] < 95
