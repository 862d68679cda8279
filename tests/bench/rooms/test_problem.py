import numpy as np
import pytest
import torch

from isonomy.bench import data
from isonomy.bench.architectures import Design
from isonomy.bench.data.rooms.problem import Rooms
from isonomy.bench.data.rooms.profiles import PROFILES
from isonomy.bench.data.rooms.sample import generate
from isonomy.errors import IsonomyError

VAL = 1_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One folder for all tests, so that rooms are made once."""
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path_factory.getbasetemp() / "rooms"))


def metrics(problem):
    return {task.name: [metric.name for metric in task.metrics] for task in problem.tasks}


def test_profiles_have_the_tasks_and_metrics_of_what_they_mirror():
    assert metrics(Rooms(profile="city3")) == {"seg": ["mIoU"], "ins": ["L1"], "disp": ["L1"]}
    assert metrics(Rooms(profile="replica3")) == {"seg": ["mIoU"], "depth": ["RMSE"], "normal": ["mErr"]}


@pytest.mark.parametrize("size", [(64, 64), (128, 96)])
def test_city3_has_offsets_and_disparity_in_pixels_of_1024_rows(size):
    problem = Rooms(profile="city3", size=size, train=1, val=2, test=1)
    batch = problem.read("val", np.arange(2))
    for index in range(2):
        room = generate(VAL + index, size)
        assert torch.equal(batch["seg"][index], torch.from_numpy(room.label).long())
        depth = torch.from_numpy(room.depth[..., 0])
        disparity = batch["disp"][index, 0]
        assert torch.equal(disparity.isnan(), depth == 0)
        torch.testing.assert_close(disparity[depth > 0] * depth[depth > 0], torch.full_like(depth[depth > 0], 60.0))
        ins, pixel = batch["ins"][index], 1024 / size[0]
        # Ceiling, floor and walls are no objects.
        assert torch.equal(ins.isnan().any(0), torch.from_numpy(room.inst < 6))
        for number in np.unique(room.inst[room.inst >= 6]):
            rows, columns = np.nonzero(room.inst == number)
            own = ins[:, rows, columns].numpy()
            np.testing.assert_allclose(own[0], pixel * (columns.mean() - columns), atol=1e-3)
            np.testing.assert_allclose(own[1], pixel * (rows.mean() - rows), atol=1e-3)


def test_mirrored_pixels_still_point_to_the_middle():
    problem = Rooms(profile="city3", train=8, val=1, test=1)
    batch = problem.read("train", np.arange(8))
    found = problem.augmented(batch, torch.Generator().manual_seed(0))
    mirrored = [not torch.equal(found["image"][i], batch["image"][i]) for i in range(8)]
    assert 0 < sum(mirrored) < 8
    for index, turned in enumerate(mirrored):
        before, after = batch["ins"][index], found["ins"][index]
        if turned:
            before = torch.stack([-before[0].flip(-1), before[1].flip(-1)])
        torch.testing.assert_close(after, before, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(found["disp"].nansum(-1), batch["disp"].nansum(-1))


def test_city3_is_as_unbalanced_as_its_units():
    """Cityscapes: tens of pixels, a few pixels, a logarithm; and that is why its losses have to be balanced."""
    problem = Rooms(profile="city3", train=8, val=1, test=1, batch_size=8)
    network = problem.network(Design("hps", "unet"), ["seg", "ins", "disp"], 0)
    (batch,) = problem.batches(0, 0, "cpu")
    losses = problem.losses(network, batch, ["seg", "ins", "disp"]).losses
    assert losses["ins"] > 3 * losses["disp"] > 9 * losses["seg"] > 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    values = problem.evaluate(network.eval(), ["ins", "disp"], "test")
    assert 20 < values["ins"]["L1"] < 300
    assert 5 < values["disp"]["L1"] < 100
    scores = {task.name: task.score(values[task.name]) for task in problem.tasks if task.name in values}
    assert all(0 <= score < 0.5 for score in scores.values())
    pictures = problem.pictures(network, ["ins", "disp"])
    assert all(0 < pictures[f"0-{name}-truth"].mean() < 255 for name in ("ins", "disp"))


def images(problem, split="train"):
    every = problem.read(split, np.arange(problem.count(split)))["image"]
    return [tuple(image.flatten()[:200].tolist()) for image in every]


def test_less_data_is_fewer_cameras_or_rooms_to_train_on():
    def rooms(**options):
        return Rooms(profile="replica3", train=16, val=4, test=4, cameras=4, **options)

    whole = images(rooms())
    assert len(set(whole)) == 16
    for options, kept in (
        ({"scans": "1/2"}, [0, 1, 4, 5, 8, 9, 12, 13]),
        ({"scans": "1/4"}, [0, 4, 8, 12]),
        ({"scans": "12"}, range(16)),
        ({"scenes": "1/2"}, range(8)),
        ({"scenes": "1"}, range(4)),
        ({"scenes": "1/2", "scans": "1"}, [0, 4]),
    ):
        less = rooms(**options)
        assert less.count("train") == len(kept)
        assert images(less) == [whole[i] for i in kept]
        assert images(less, "val") == images(rooms(), "val")
        assert images(less, "test") == images(rooms(), "test")


def test_noise_is_that_of_the_image_whatever_is_left_out():
    whole = Rooms(profile="replica3", train=8, val=1, test=1, cameras=4, noise=True)
    less = Rooms(profile="replica3", train=8, val=1, test=1, cameras=4, noise=True, scans="1/2")
    one, other = whole.read("train", np.array([4, 5])), less.read("train", np.array([2, 3]))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_epoch_has_as_many_steps_whatever_the_data():
    problem = Rooms(
        profile="replica3", train=8, val=1, test=1, cameras=4, scenes="1", batch_size=2, steps=5, flip=False
    )
    seen = [[image for batch in problem.batches(0, e, "cpu") for image in batch["image"]] for e in range(2)]
    assert [len(each) for each in seen] == [10, 10]
    numbers = [images(problem).index(tuple(image.flatten()[:200].tolist())) for each in seen for image in each]
    assert all(sorted(numbers[i : i + 4]) == [0, 1, 2, 3] for i in range(0, 20, 4))
    again = [image for batch in problem.batches(0, 1, "cpu") for image in batch["image"]]
    assert all(torch.equal(a, b) for a, b in zip(again, seen[1], strict=True))
    # A pass is a pass for whom the training images are not what is trained on.
    assert len(list(problem.batches(0, 0, "cpu", "val"))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("profile=city4", "profile of rooms"),
        ("cameras=0", "Option cameras of rooms is 0"),
        ("scans=1/2", "leaves nothing out of 1 scan a room: set cameras"),
        ("cameras=2,scans=half", "Option scans of rooms is 'half'"),
        ("scenes=5/4", "Option scenes of rooms is '5/4'"),
        ("steps=-1", "Option steps of rooms is -1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(IsonomyError, match=message):
        data.load(f"rooms:{options}")


def test_every_profile_can_be_loaded_by_name():
    for profile, tasks in PROFILES.items():
        assert data.load(f"rooms:profile={profile}").tasks == tasks
