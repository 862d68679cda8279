import math
from itertools import chain, combinations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from isonomy import IsonomyError
from isonomy.bench import data
from isonomy.bench.architectures import Design
from isonomy.bench.architectures.output import Output
from isonomy.bench.data import digit_domains
from isonomy.bench.seeds import key
from tests.bench import tiny

HPS = Design("hps")
NAMES = ["clean", "photo", "sketch"]


def network(seed=0, tasks=NAMES):
    return data.load("digit_domains").network(HPS, tasks, seed)


@pytest.mark.parametrize("inverted", [False, True])
def test_every_digit_is_in_one_split_of_one_domain(inverted):
    parts = [digits for splits in digit_domains.dealt(inverted).values() for digits in splits.values()]
    assert all(not set(one) & set(other) for one, other in combinations(parts, 2))
    assert sorted(chain.from_iterable(parts)) == list(range(1797))


def test_domains_have_the_sizes_that_were_dealt():
    sizes = {name: sum(map(len, splits.values())) for name, splits in digit_domains.dealt(False).items()}
    assert sizes == {"clean": 1000, "photo": 260, "sketch": 537}
    sizes = {name: sum(map(len, splits.values())) for name, splits in digit_domains.dealt(True).items()}
    assert sizes == {"clean": 700, "photo": 260, "sketch": 537, "inverted": 300}
    for name in ("photo", "sketch"):
        for split, digits in digit_domains.dealt(True)[name].items():
            assert (digits == digit_domains.dealt(False)[name][split]).all()


@pytest.mark.parametrize("inverted", [False, True])
def test_every_class_is_split_in_the_same_proportions(inverted):
    classes = load_digits().target
    for splits in digit_domains.dealt(inverted).values():
        for label in range(10):
            train, val, test = ((classes[digits] == label).sum() for digits in splits.values())
            total = train + val + test
            assert train == math.floor(0.6 * total + 1e-9)
            assert val == math.floor(0.2 * total + 1e-9)
            assert test > 0


def test_images_carry_their_digits_classes():
    raw = load_digits()
    for domain in NAMES:
        for split, digits in digit_domains.dealt(False)[domain].items():
            images, labels = digit_domains.samples(domain, split, False)
            assert images.shape == (len(digits), 1, 12, 12)
            assert images.dtype == torch.float32
            assert images.min() >= 0
            assert images.max() <= 1
            assert labels.tolist() == raw.target[digits].tolist()


def bilinear(image, row, column):
    """Between the pixels of an image; 0 outside of it."""
    top, left = math.floor(row), math.floor(column)
    value = 0.0
    for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= i < 12 and 0 <= j < 12:
            value += (1 - abs(row - i)) * (1 - abs(column - j)) * image[i][j]
    return value


def canvas(digit):
    image = np.zeros((12, 12))
    image[2:10, 2:10] = load_digits().images[digit] / 16
    return image


def warped(digit, generator):
    turn, grow = generator.random(2)
    angle, zoom = 0.6 * turn - 0.3, 0.85 + (1 / 0.85 - 0.85) * grow
    image, result = canvas(digit), np.zeros((12, 12))
    for row in range(12):
        for column in range(12):
            y, x = row - 5.5, column - 5.5
            across = (math.cos(angle) * x - math.sin(angle) * y) / zoom
            down = (math.sin(angle) * x + math.cos(angle) * y) / zoom
            result[row, column] = bilinear(image, down + 5.5, across + 5.5)
    return result


def photo(digit):
    generator = np.random.default_rng(key("digit_domains", 1, "photo", digit))
    image = warped(digit, generator)
    blocks, noise = generator.random((4, 4)), generator.standard_normal((12, 12))
    for row in range(12):
        for column in range(12):
            value = 0.75 * image[row, column] + 0.35 * blocks[row // 3, column // 3] + 0.06 * noise[row, column]
            image[row, column] = min(max(value, 0), 1)
    return image


def sketch(digit):
    image = warped(digit, np.random.default_rng(key("digit_domains", 1, "sketch", digit)))
    result = np.zeros((12, 12))
    for row in range(12):
        for column in range(12):
            across = abs(image[row, column] - image[row, column - 1]) if column else 0
            down = abs(image[row, column] - image[row - 1, column]) if row else 0
            result[row, column] = min(across + down, 1)
    return result


def inverted(digit):
    image, result = canvas(digit), np.zeros((12, 12))
    for row in range(12):
        for column in range(12):
            result[row, column] = 1 - image[row : row + 2, column : column + 2].max()
    return result


@pytest.mark.parametrize(
    ("domain", "by_hand"), [("clean", canvas), ("photo", photo), ("sketch", sketch), ("inverted", inverted)]
)
def test_images_recomputed_by_hand(domain, by_hand):
    digits = digit_domains.dealt(True)[domain]["val"][:6]
    images = digit_domains.drawn(domain, digits)
    for digit, image in zip(digits, images, strict=True):
        np.testing.assert_allclose(image[0].numpy(), by_hand(int(digit)), atol=2e-6)


@pytest.mark.parametrize("domain", [*NAMES, "inverted"])
def test_an_image_depends_on_its_digit_alone(domain):
    digits = digit_domains.dealt(True)[domain]["train"][:20]
    together = digit_domains.drawn(domain, digits)
    torch.testing.assert_close(together[7:8], digit_domains.drawn(domain, digits[7:8]))
    torch.testing.assert_close(together.flip(0), digit_domains.drawn(domain, digits[::-1].copy()))
    assert torch.equal(together, digit_domains.drawn(domain, digits))


def test_the_largest_domain_makes_the_epoch_and_smaller_ones_begin_again():
    problem = data.load("digit_domains")
    batches = list(problem.batches(0, 3, "cpu"))
    assert len(batches) == 596 // 32 == 18
    assert all(list(batch) == NAMES for batch in batches)
    assert {len(split.labels) for batch in batches for split in batch.values()} == {32}
    photos = [[image.numpy().tobytes() for image in batch["photo"].images] for batch in batches]
    turns = [list(chain.from_iterable(photos[turn : turn + 4])) for turn in (0, 4, 8, 12)]
    assert all(len(set(turn)) == 128 for turn in turns)  # of 151: no photo twice in a turn
    assert len({tuple(turn) for turn in turns}) == 4


def test_the_order_is_the_seeds_and_the_epochs():
    problem = data.load("digit_domains")

    def seen(seed, epoch, split="train"):
        batches = problem.batches(seed, epoch, "cpu", split)
        return [torch.cat([domain.images for domain in batch.values()]) for batch in batches]

    first = seen(1, 0)
    assert all(map(torch.equal, first, seen(1, 0)))
    assert not torch.equal(first[0], seen(1, 1)[0])
    assert not torch.equal(first[0], seen(2, 0)[0])
    assert len(seen(1, 0, "val")) == 196 // 32


def test_a_batch_larger_than_a_domain_is_refused():
    problem = digit_domains.DigitDomains(batch_size=49)
    assert next(problem.batches(0, 0, "cpu"))["photo"].labels.shape == (49,)
    with pytest.raises(IsonomyError, match=r"batch_size=49 .* 'photo' .* 'val': choose at most 48"):
        next(problem.batches(0, 0, "cpu", "val"))


def test_every_task_is_judged_on_its_own_images():
    problem = data.load("digit_domains")
    model, batch = network(), next(problem.batches(0, 0, "cpu"))
    losses, feature, penalty = problem.losses(model, batch, NAMES)
    assert feature is None
    assert penalty is None
    for task in NAMES:
        prediction = model.heads[task](model.encoder(batch[task].images))
        torch.testing.assert_close(losses[task], torch.nn.functional.cross_entropy(prediction, batch[task].labels))
    losses["photo"].backward()
    assert model.heads["photo"].weight.grad is not None
    assert model.heads["clean"].weight.grad is None
    assert list(problem.losses(model, batch, ["sketch"]).losses) == ["sketch"]


def test_metrics_of_known_predictions():
    class Half(torch.nn.Module):
        """Right for the first half of the test images of a domain, wrong for the rest."""

        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(()))

        def forward(self, images, tasks):
            (task,) = tasks
            expected, labels = digit_domains.samples(task, "test", False)
            assert torch.equal(images, expected)
            answers = torch.where(torch.arange(len(labels)) < len(labels) // 2, labels, (labels + 1) % 10)
            return Output(None, {task: torch.nn.functional.one_hot(answers, 10).float()})

    values = data.load("digit_domains").evaluate(Half(), NAMES, "test")
    for task in NAMES:
        count = len(digit_domains.samples(task, "test", False).labels)
        assert values[task]["accuracy"] == pytest.approx(100 * (count // 2) / count)


def test_parts_start_alike_in_single_and_multi_task_networks():
    multi = network(3).state_dict()
    for task in NAMES:
        for name, value in network(3, [task]).state_dict().items():
            assert torch.equal(value, multi[name]), name
    assert not torch.equal(multi["heads.clean.weight"], multi["heads.photo.weight"])


def test_a_fourth_domain_is_an_option():
    problem = data.load("digit_domains:inverted=true")
    assert [task.name for task in problem.tasks] == [*NAMES, "inverted"]
    assert problem.name == "digit_domains:inverted=true"
    assert len(next(problem.batches(0, 0, "cpu"))["inverted"].labels) == 32


def test_a_short_training_reads_the_digits():
    problem = data.load("digit_domains")
    trainer = tiny.trainer("pcgrad", problem, data="digit_domains")
    before = trainer.evaluate("val")
    for epoch in range(5):
        for batches in trainer.begin(epoch):
            trainer.step(batches)
    after = trainer.evaluate("val")
    # Ten classes, nearly balanced: who guesses is right once in ten.
    assert max(value["accuracy"] for value in before.values()) < 30
    assert after["clean"]["accuracy"] > 75
    assert min(after[task]["accuracy"] for task in ("photo", "sketch")) > 35
    assert trainer.scores(after)["clean"] == pytest.approx(after["clean"]["accuracy"] / 100)
