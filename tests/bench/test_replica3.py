import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from isonomy.bench import data
from isonomy.bench.architectures import Design
from isonomy.bench.data import stand_ins
from isonomy.bench.data.replica3 import BUILDINGS, MODALITIES, Replica3
from isonomy.bench.data.rooms.cache import FIRST
from isonomy.bench.data.rooms.sample import generate
from isonomy.errors import IsonomyError

# Stored colours of surfaces that face the viewer, up, to the right and nowhere.
VIEWER, UP, RIGHT, NONE = (128, 128, 0), (128, 0, 128), (255, 128, 128), (128, 128, 128)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    return tmp_path / "replica3"


def arrays(size=(8, 8)):
    """A wall two metres away, of class 93 in the files."""
    semantic = np.zeros((*size, 3), dtype=np.uint8)
    semantic[:] = (93, 1, 2)
    return {
        "rgb": np.full((*size, 3), 51, dtype=np.uint8),
        "semantic": semantic,
        "depth_zbuffer": np.full(size, 1024, dtype=np.uint16),
        "normal": np.full((*size, 3), VIEWER, dtype=np.uint8),
        "mask_valid": np.full(size, 255, dtype=np.uint8),
    }


def save(root, building, point=0, view=0, old=False, word=None, **own):
    paths = {}
    for modality, array in own.items():
        folder = root / building / modality if old else root / modality / "replica" / building
        folder.mkdir(parents=True, exist_ok=True)
        paths[modality] = (
            folder / f"point_{point}_view_{view}_domain_{word if word and 'mask' in modality else modality}.png"
        )
        Image.fromarray(array).save(paths[modality])
    return paths


def tree(root, first=None, **options):
    """One image of each split; of the one that is trained on the files are given."""
    for building in ("apartment_2", "room_1"):
        save(root, building, **options, **arrays())
    return save(root, "room_2", 3, 14, **options, **(first or arrays()))


def only(**options):
    return Replica3(size=(8, 8), **options).example("train", 0)


def empty(root, buildings, points=4, views=3):
    """Files without anything in them, for those who only look at names."""
    for building in buildings:
        for modality in MODALITIES:
            folder = root / modality / "replica" / building
            folder.mkdir(parents=True)
            for point in range(points):
                for view in range(views):
                    (folder / f"point_{point}_view_{view}_domain_{modality}.png").touch()


def test_files_become_classes_metres_and_directions(root):
    own = arrays()
    own["rgb"][0, 0] = (255, 0, 102)
    own["semantic"][0, :4, 0] = [0, 1, 101, 31]
    own["depth_zbuffer"][0, :4] = [256, 65535, 0, 65534]
    own["normal"][0, :3] = [UP, RIGHT, NONE]
    tree(root, own)
    sample = only()
    assert sample["image"][:, 0, 0].tolist() == pytest.approx([1, 0, 0.4])
    assert sample["image"][:, 1, 1].tolist() == pytest.approx([0.2, 0.2, 0.2])
    assert sample["seg"][0, :5].tolist() == [-1, 0, 100, 30, 92]
    assert sample["depth"][0, 0, :5].tolist() == [0.5, 0, 0, 65534 / 512, 2]
    assert sample["normal"].dtype == torch.float32
    for column, expected in enumerate([(0, 1, 0), (1, 0, 0), (0, 0, 0), (0, 0, 1)]):
        # Half of a step of 8 bits: 0.004.
        assert sample["normal"][:, 0, column].tolist() == pytest.approx(expected, abs=0.006)
    assert sample["normal"][:, 0, 2].tolist() == [0, 0, 0]
    lengths = sample["normal"].norm(dim=0)
    assert ((lengths - 1).abs() < 1e-6).logical_or(lengths == 0).all()


def test_what_is_missing_grows_by_two_pixels(root):
    own = arrays()
    own["mask_valid"][0, 1] = 0
    tree(root, own)
    sample = only()
    lost = torch.zeros(8, 8, dtype=torch.bool)
    lost[:3, :4] = True
    assert torch.equal(sample["seg"] == -1, lost)
    assert torch.equal(sample["depth"][0] == 0, lost)
    assert torch.equal((sample["normal"] == 0).all(0), lost)


def test_both_packagings_and_both_names_of_masks_are_read(root, tmp_path, monkeypatch):
    own = arrays()
    own["mask_valid"][0, 1] = 0
    expected = None
    for number, options in enumerate(
        ({}, {"old": True}, {"word": "depth_zbuffer"}, {"old": True, "word": "depth_zbuffer"})
    ):
        monkeypatch.setenv("ISONOMY_DATA", str(tmp_path / str(number)))
        tree(tmp_path / str(number), own, **options)
        problem = Replica3(size=(8, 8))
        assert problem.samples == {"train": ["room_2/3/14"], "val": ["apartment_2/0/0"], "test": ["room_1/0/0"]}
        found = problem.example("train", 0)
        expected = expected or found
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_stand_in_is_read_as_the_rooms_that_it_was_made_of(root):
    stand_ins.write("replica3", root, (64, 64), {"train": 3, "val": 1, "test": 1})
    problem = Replica3(size=(64, 64))
    assert problem.samples["train"] == ["apartment_0/0/0", "apartment_0/1/0", "office_1/0/0"]
    sample, room = problem.example("train", 1), generate(FIRST["train"], (64, 64), 1)
    there = sample["depth"][0] > 0
    assert 0.5 < there.float().mean() < 1
    assert not (there & torch.from_numpy(room.depth[..., 0] == 0)).any()
    assert torch.allclose(sample["depth"][0][there], torch.from_numpy(room.depth[..., 0])[there], atol=1 / 1024)
    cosine = (sample["normal"] * torch.from_numpy(room.normal).permute(2, 0, 1)).sum(0)[there]
    assert cosine.clamp(-1, 1).arccos().rad2deg().max() < 0.5
    assert torch.allclose(sample["image"], torch.from_numpy(room.image).permute(2, 0, 1), atol=1e-6)


def test_normals_agree_with_the_slopes_of_their_depth(root):
    """Where a plane faces right, what is further right is further away; so the axes can be checked on any tree."""
    stand_ins.write("replica3", root, (128, 128), {"train": 2, "val": 1, "test": 1})
    sample = Replica3(size=(128, 128)).example("train", 0)
    depth, normal = sample["depth"][0], sample["normal"]
    near = torch.where(depth > 0, 1 / depth, torch.nan)
    for axis, slope in ((0, near.diff(dim=1)[:-1]), (1, -near.diff(dim=0)[:, :-1])):
        own = normal[axis, :-1, :-1]
        # Neither flat ones, which rounding decides, nor steps between objects.
        clear = (own.abs() > 0.3) & (slope.abs() < 0.05) & (slope.abs() > 1e-3)
        assert clear.sum() > 100
        assert ((slope < 0) == (own > 0))[clear].float().mean() > 0.97
    middle = normal[2, 48:80, 48:80]
    assert (middle[middle != 0] > 0).float().mean() > 0.99


def test_files_that_are_not_the_papers_are_noted(root):
    tree(root)
    usual = "Non-standard split of replica3: 1 of 56783 for train, 1 of 23725 for val, 1 of 23889 for test."
    assert Replica3(size=(8, 8)).notes == Replica3(size=(8, 8), scans="1/4").notes == (usual,)
    away = arrays() | {"normal": np.full((8, 8, 3), (128, 128, 255), dtype=np.uint8)}
    save(root, "room_1", **away)
    (first, second) = Replica3(size=(8, 8)).notes
    assert first == usual
    assert second.startswith("In 1 of 1 images surfaces face away from the camera")


def test_noise_spoils_what_is_trained_on_and_nothing_else(root):
    own = arrays((64, 64))
    own["semantic"][:, 32:, 0] = 31
    own["semantic"][:8, :, 0] = 0
    own["depth_zbuffer"][:, :4] = 65535
    for building in ("apartment_2", "room_1", "room_2"):
        save(root, building, **own)
    clean, noisy = (Replica3(size=(64, 64), noise=noise) for noise in (False, True))
    before, after = clean.example("train", 0), noisy.example("train", 0)
    assert torch.equal(before["image"], after["image"])
    labelled = before["seg"] >= 0
    assert torch.equal(labelled, after["seg"] >= 0)
    assert 0.45 < (before["seg"] != after["seg"])[labelled].float().mean() < 0.55
    assert after["seg"].max() > 98
    assert torch.equal(before["depth"] > 0, after["depth"] > 0)
    error = (after["depth"] - before["depth"])[before["depth"] > 0]
    assert error.std() == pytest.approx(0.1 + 0.05 * 2, rel=0.05)
    turned = (before["normal"] * after["normal"]).sum(0).clamp(-1, 1).arccos().rad2deg()
    assert 10 < turned.mean() < 30
    again = noisy.example("train", 0)
    assert all(torch.equal(after[name], again[name]) for name in after)
    for split in ("val", "test"):
        one, other = clean.example(split, 0), noisy.example(split, 0)
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_less_data_is_fewer_points_views_or_buildings_of_those_to_train_on(root):
    empty(root, [building for split in BUILDINGS.values() for building in split])
    whole = Replica3().samples
    assert [len(whole[split]) for split in ("train", "val", "test")] == [120, 48, 48]

    def train(**options):
        found = Replica3(**options).samples
        assert {split: found[split] for split in ("val", "test")} == {split: whole[split] for split in ("val", "test")}
        assert found["train"] == Replica3(**options).samples["train"]
        assert found["train"] == [name for name in whole["train"] if name in set(found["train"])]
        return found["train"]

    def buildings(names):
        return {name.split("/")[0] for name in names}

    half, quarter = train(scans="1/2"), train(scans="1/4")
    assert (len(half), len(quarter)) == (60, 30)
    assert set(quarter) < set(half)
    # All buildings, each with two whole points.
    assert buildings(half) == set(BUILDINGS["train"])
    points = {name.rpartition("/")[0] for name in half}
    assert len(points) == 20
    assert all(f"{point}/{view}" in half for point in points for view in range(3))
    views = train(scans="1/2", unit="view")
    assert (len(views), len(buildings(views))) == (60, 10)
    assert len({name.rpartition("/")[0] for name in views}) > 20
    assert len(train(scans="12")) == 120
    assert len(train(scans="2", unit="view")) == 20
    few, one = train(scenes="1/2"), train(scenes="1")
    assert (len(few), len(buildings(few)), len(one), len(buildings(one))) == (60, 5, 12, 1)
    assert buildings(one) < buildings(few)
    assert train(scenes="1", scans="1/4") == [name for name in quarter if name.split("/")[0] in buildings(one)]


def test_an_epoch_has_as_many_steps_whatever_the_data(root):
    stand_ins.write("replica3", root, (64, 64), {"train": 4, "val": 1, "test": 1})
    plain = Replica3(size=(64, 64), batch_size=1, steps=3, augment=False)
    known = [plain.example("train", i)["image"] for i in range(4)]

    def visited(problem, epoch):
        return [
            next(i for i, image in enumerate(known) if torch.equal(batch["image"][0], image))
            for batch in problem.batches(0, epoch, "cpu")
        ]

    order = [i for epoch in range(4) for i in visited(plain, epoch)]
    assert len(order) == 12
    # Three whole passes, each in an order of its own.
    passes = [order[i : i + 4] for i in (0, 4, 8)]
    assert all(sorted(each) == [0, 1, 2, 3] for each in passes)
    assert len({tuple(each) for each in passes}) > 1
    assert len(visited(Replica3(size=(64, 64), batch_size=1, steps=0, augment=False), 0)) == 4
    changed = Replica3(size=(64, 64), batch_size=1, steps=6)
    images = [batch["image"].flatten().tolist() for epoch in range(2) for batch in changed.batches(0, epoch, "cpu")]
    assert len({tuple(image) for image in images}) == 12


def test_images_of_another_size_are_resized(root):
    tree(root)
    problem = Replica3(size=(16, 24))
    sample = problem.read("test", np.array([0]))
    assert {tuple(tensor.shape[-2:]) for tensor in sample.values()} == {(16, 24)}
    assert (sample["depth"] == 2).all()
    assert (sample["seg"] == 92).all()
    (batch,) = Replica3(size=(16, 24), batch_size=1, steps=1).batches(0, 0, "cpu")
    assert {tuple(tensor.shape[-2:]) for tensor in batch.values()} == {(16, 24)}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("modality", MODALITIES[1:])
def test_what_is_missing_is_named_with_the_layout(root, modality, old):
    path = tree(root, old=old)[modality]
    path.unlink()
    with pytest.raises(IsonomyError) as caught:
        _ = Replica3().samples
    assert f"{path} is missing" in str(caught.value)
    assert "point_I_view_J_domain_depth_zbuffer.png" in str(caught.value)
    assert "Omnidata's downloader" in str(caught.value)


def test_a_folder_of_something_else_or_without_a_split_is_refused(root):
    root.mkdir()
    with pytest.raises(IsonomyError, match=r"rgb/replica is missing"):
        _ = Replica3().samples
    save(root, "room_2", **arrays())
    with pytest.raises(IsonomyError, match="there is no image for split 'val'"):
        _ = Replica3().samples


@pytest.mark.parametrize(
    ("modality", "values", "reason"),
    [
        ("rgb", None, "cannot identify|truncated"),
        ("normal", np.zeros((8, 8), dtype=np.uint8), "shape"),
        ("semantic", np.full((8, 8, 3), 102, dtype=np.uint8), "holds 102"),
        ("semantic", np.zeros((8, 8), dtype=np.uint8), "shape"),
        ("depth_zbuffer", np.zeros((4, 8), dtype=np.uint16), "shape"),
        ("depth_zbuffer", np.zeros((8, 8), dtype=np.uint8), "8 bits, and 16 are wanted"),
        ("mask_valid", np.full((8, 8), 7, dtype=np.uint8), "holds 7"),
    ],
)
def test_a_damaged_file_is_named_with_its_sample(root, modality, values, reason):
    path = tree(root)[modality]
    if values is None:
        path.write_bytes(path.read_bytes()[:40])
    else:
        Image.fromarray(values).save(path)
    with pytest.raises(IsonomyError, match=reason) as caught:
        only()
    assert f"{path} (sample 0) is damaged" in str(caught.value)


def test_nothing_is_read_before_it_is_needed(monkeypatch):
    monkeypatch.delenv("ISONOMY_DATA", raising=False)
    problem = data.load("replica3:scans=1/4,unit=view,noise=true")
    assert [(task.name, [metric.name for metric in task.metrics]) for task in problem.tasks] == [
        ("seg", ["mIoU"]),
        ("depth", ["RMSE"]),
        ("normal", ["mErr"]),
    ]
    assert (problem.architectures[0], problem.backbones[0]) == ("invpt", "vit_base")
    assert problem.recipe.epochs * problem.steps == 40_000
    with pytest.raises(IsonomyError, match="--data-root"):
        _ = problem.samples


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("scans=none", "Option scans of replica3 is 'none'"),
        ("scenes=3/2", "Option scenes of replica3 is '3/2'"),
        ("unit=image", "unit of replica3"),
        ("size=8x-8", "Option size of replica3 is 8x-8"),
        ("size=8x8x8", "Option size of replica3 is 8x8x8"),
        ("steps=-1", "Option steps of replica3 is -1"),
        ("workers=-1", "Option workers of replica3 is -1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(IsonomyError, match=message):
        data.load(f"replica3:{options}")


def test_the_stand_in_can_be_trained_on_and_judged(root):
    stand_ins.write("replica3", root, (64, 64))
    problem = data.load("replica3:size=64x64,batch_size=2,steps=1,noise=true,scans=1/2")
    assert len(problem.samples["train"]) == 2
    names = [task.name for task in problem.tasks]
    network = problem.network(Design("hps", "unet"), names, 0)
    (batch,) = problem.batches(0, 0, "cpu")
    torch.stack(list(problem.losses(network, batch, names).losses.values())).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    values = problem.evaluate(network.eval(), names, "test")
    assert 0 <= values["seg"]["mIoU"] <= 100
    assert values["depth"]["RMSE"] > 0
    assert 0 < values["normal"]["mErr"] < 180


def test_processes_that_start_afresh_read_the_same(root):
    stand_ins.write("replica3", root, (64, 64))
    problem = data.load("replica3:size=64x64")
    again = pickle.loads(pickle.dumps(problem))
    assert again.samples == problem.samples
    one, other = problem.read("test", np.arange(2)), again.read("test", np.arange(2))
    for tensor, same in zip(one.values(), other.values(), strict=True):
        torch.testing.assert_close(tensor, same, rtol=0, atol=0, equal_nan=True)
