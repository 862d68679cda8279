import numpy as np
import pytest
import torch
from torch import nn

from isonomy.bench import data
from isonomy.bench.architectures.output import Output
from isonomy.errors import IsonomyError
from tests.bench.noise import Noise


def test_flips_mirror_maps_and_turn_the_x_of_normals():
    problem = Noise()
    batch = problem.read("train", np.arange(5))
    chosen = torch.rand(5, generator=torch.Generator().manual_seed(4)) < 0.5
    mirrored = problem.augmented(batch, torch.Generator().manual_seed(4))
    assert 0 < chosen.sum() < 5
    for name, tensor in batch.items():
        assert torch.equal(mirrored[name][~chosen], tensor[~chosen])
        again = mirrored[name][chosen].flip(-1)
        if name == "normal":
            assert torch.equal(again[:, 0], -tensor[chosen][:, 0])
            assert torch.equal(again[:, 1:], tensor[chosen][:, 1:])
        else:
            assert torch.equal(again, tensor[chosen])
    assert Noise(flip=False).augmented(batch, torch.Generator()) is batch


def test_batches_depend_on_seed_and_epoch_alone_and_drop_what_is_left_over():
    def visited(seed, epoch, split="train"):
        return list(Noise().batches(seed, epoch, "cpu", split))

    first, again = visited(0, 0), visited(0, 0)
    assert len(first) == 2
    assert all(torch.equal(a[n], b[n]) for a, b in zip(first, again, strict=True) for n in a)
    assert any(not torch.equal(a["image"], b["image"]) for a, b in zip(first, visited(0, 1), strict=True))
    assert any(not torch.equal(a["image"], b["image"]) for a, b in zip(first, visited(1, 0), strict=True))
    few = list(Noise(images=1).batches(0, 0, "cpu"))
    assert [len(batch["image"]) for batch in few] == [1]


def test_only_training_images_are_flipped():
    problem = Noise(images=8, batch_size=8)
    known = {tuple(image.flatten()[:9].tolist()) for image in problem.read("val", np.arange(8))["image"]}
    (batch,) = problem.batches(0, 0, "cpu", "val")
    assert {tuple(image.flatten()[:9].tolist()) for image in batch["image"]} == known
    plain = {tuple(image.flatten()[:9].tolist()) for image in problem.read("train", np.arange(8))["image"]}
    seen = {tuple(image.flatten()[:9].tolist()) for b in problem.batches(0, 0, "cpu") for image in b["image"]}
    assert 0 < len(seen & plain) < 8


class Constant(nn.Module):
    """Predicts one map for all images; with further predictions and a penalty."""

    def __init__(self, problem, coarse=False, aux=False):
        super().__init__()
        height, width = (4, 4) if coarse else problem.size
        draws = torch.Generator().manual_seed(0)
        self.maps = nn.ParameterDict(
            {t.name: nn.Parameter(torch.randn(1, t.outputs, height, width, generator=draws)) for t in problem.tasks}
        )
        self.aux = aux

    def forward(self, x):
        predictions = {name: value.expand(len(x), -1, -1, -1) for name, value in self.maps.items()}
        further = ({name: 2 * value[..., ::2, ::2] for name, value in predictions.items()},) if self.aux else ()
        return Output(None, predictions, further, torch.tensor(3.0))


def test_a_loss_is_the_sum_over_final_and_further_predictions():
    problem = Noise()
    batch = next(problem.batches(0, 0, "cpu"))
    names = [task.name for task in problem.tasks]
    plain, more = (problem.losses(Constant(problem, aux=aux), batch, names) for aux in (False, True))
    model = Constant(problem)
    for task in problem.tasks:
        value = model.maps[task.name].expand(2, -1, -1, -1)
        torch.testing.assert_close(plain.losses[task.name], task.loss(value, batch[task.name]))
        further = task.loss(2 * value[..., ::2, ::2], batch[task.name])
        torch.testing.assert_close(more.losses[task.name], plain.losses[task.name] + further)
    assert plain.penalty == 3
    assert plain.feature is None
    assert list(problem.losses(model, batch, ["edge"]).losses) == ["edge"]


def test_metrics_are_of_the_whole_split_whatever_the_batches():
    names = ["seg", "depth", "normal", "edge"]
    model = Constant(Noise(), coarse=True)
    found = [Noise(batch_size=size).evaluate(model, names, "test") for size in (1, 2, 5)]
    for other in found[1:]:
        for task in names:
            assert other[task] == pytest.approx(found[0][task], rel=1e-9)
    assert {task: list(values) for task, values in found[0].items()} == {
        "seg": ["mIoU"],
        "depth": ["RMSE"],
        "normal": ["mErr"],
        "edge": ["odsF"],
    }


@pytest.mark.parametrize("profile", ["nyud4", "context5"])
def test_every_prediction_can_be_looked_at(profile):
    problem = Noise(profile=profile)
    found = problem.pictures(Constant(problem, coarse=True), [task.name for task in problem.tasks])
    expected = {"image"} | {f"{task.name}{end}" for task in problem.tasks for end in ("", "-truth")}
    assert set(found) == {f"{i}-{what}" for i in (0, 1) for what in expected}
    for name, picture in found.items():
        assert picture.shape == (32, 32, 3), name
        assert picture.dtype == np.uint8, name
        assert picture.std() > 0, name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("room", "Unknown data set 'room'.*rooms"),
        ("rooms:trian=3", "Unknown option of rooms 'trian'.*train"),
        ("rooms:size=64", "Option size of rooms is '64': write something like 64x64"),
        ("rooms:train=many", "Option train of rooms is 'many': write something like 320"),
        ("rooms:noise=yes", "Option noise of rooms is 'yes': write true or false"),
        ("rooms:train=0", "Option train of rooms is 0: choose from 1 to 1000000"),
        ("rooms:val=2000001,cameras=2", "Option val of rooms is 2000001: choose from 1 to 2000000"),
        ("rooms:size=64x64x64", "is not possible for rooms: choose a height and a width from 64 x 64 to"),
        ("rooms:size=-64x64", "is not possible for rooms: choose a height and a width from 64 x 64 to"),
        ("rooms:profile=nyud", "Unknown profile of rooms 'nyud'.*nyud4"),
        ("toy:size=3", "Unknown option of toy 'size'"),
    ],
)
def test_bad_options_of_a_data_set_are_refused_in_one_sentence(name, sentence):
    with pytest.raises(IsonomyError, match=sentence):
        data.load(name)


def test_options_are_read_by_the_type_of_their_default():
    problem = data.load("rooms:size=96x128,train=12,noise=true,batch_size=4")
    assert (problem.size, problem.train, problem.noise, problem.batch_size) == ((96, 128), 12, True, 4)
    assert problem.name == "rooms:size=96x128,train=12,noise=true,batch_size=4"
    assert data.load("rooms").name == "rooms"
