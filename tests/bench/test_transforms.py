"""Joint transforms of an image and its labels."""

from __future__ import annotations

from math import nan, radians

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from isonomy.bench.data import transforms
from isonomy.bench.data.transforms import (
    CLASSES,
    DEPTH,
    DISPARITY,
    INVERSE,
    MASK,
    NORMAL,
    OFFSETS,
    RAW_NORMAL,
    SMOOTH_NORMAL,
    Sample,
    cropped,
    flipped,
    padded,
    random_scale_crop,
    resized,
    rotated,
    scale_crop_flip,
    scaled,
)
from isonomy.errors import IsonomyError

KINDS = {
    "seg": CLASSES, "edge": MASK, "depth": DEPTH, "inverse": INVERSE, "normal": NORMAL, "ins": OFFSETS,
    "disp": DISPARITY,
}  # fmt: skip


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plane(height: int, width: int) -> Tensor:
    """A number a pixel, all different."""
    return torch.arange(height * width).view(height, width)


def sample(height: int = 6, width: int = 8, seed: int = 0) -> Sample:
    normal = functional.normalize(torch.randn(3, height, width, generator=draws(seed)), dim=0)
    numbers = plane(height, width)
    return {
        "image": torch.rand(3, height, width, generator=draws(seed + 1)),
        "seg": numbers,
        "edge": numbers % 2,
        "depth": 1.0 + numbers[None],
        "inverse": 1 / (1.0 + numbers[None]),
        "normal": normal,
        "ins": torch.stack([numbers, -numbers]).float(),
        "disp": numbers[None].float(),
    }


def test_the_mirror_turns_normals_and_offsets_around_and_nothing_else():
    before = sample()
    after = flipped(before, KINDS)
    for name in ("image", "seg", "edge", "depth", "inverse", "disp"):
        assert torch.equal(after[name], before[name].flip(-1)), name
    for name in ("normal", "ins"):
        assert torch.equal(after[name][0], -before[name][0].flip(-1)), name
        assert torch.equal(after[name][1:], before[name][1:].flip(-1)), name


def test_two_mirrors_are_none():
    before = sample()
    after = flipped(flipped(before, KINDS), KINDS)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_normals_of_a_mirrored_surface_are_those_of_its_mirrored_depth():
    """A slope that rises to the right, seen by an orthographic camera: its normal follows from its depth."""
    x = torch.linspace(-1, 1, 9)
    depth = (3 + 0.5 * x).expand(1, 7, 9)
    # z = 3 + x / 2 away from the viewer: the normal towards the viewer is (1/2, 0, 1) / length.
    towards = torch.tensor([0.5, 0, 1.0])

    def normals(depth: Tensor) -> Tensor:
        slope = (depth[0, :, 2:] - depth[0, :, :-2]) / 0.5
        return functional.normalize(torch.stack([slope, torch.zeros_like(slope), torch.ones_like(slope)]), dim=0)

    normal = functional.normalize(towards, dim=0).view(3, 1, 1).expand(3, 7, 9)
    before = {"image": torch.zeros(3, 7, 9), "depth": depth, "normal": normal}
    torch.testing.assert_close(normals(depth), normal[..., 1:-1])
    after = flipped(before, KINDS)
    torch.testing.assert_close(normals(after["depth"]), after["normal"][..., 1:-1])


def test_offsets_still_point_at_their_middle_after_a_mirror_a_scale_and_a_turn():
    """The middle of an object is found from each pixel's offset, wherever the pixel went."""
    size = 41
    y, x = torch.meshgrid(torch.arange(size).float(), torch.arange(size).float(), indexing="ij")
    middle = torch.tensor([27.0, 12.0])  # x, y
    before = {"image": torch.zeros(3, size, size), "ins": torch.stack([middle[0] - x, middle[1] - y])}

    def pointed(after: Sample) -> Tensor:
        ins = after["ins"]
        rows, columns = torch.meshgrid(*(torch.arange(side).float() for side in ins.shape[-2:]), indexing="ij")
        return torch.stack([columns + ins[0], rows + ins[1]])[:, ~ins.isnan().any(0)]

    at = pointed(flipped(before, KINDS))
    torch.testing.assert_close(at, torch.tensor([[40.0 - 27], [12.0]]).expand_as(at))
    # Corners stay where they are, so the middle of pixel 27 goes to 2 * 27.5 - 0.5; the nearest pixel is half off.
    at = pointed(scaled(before, KINDS, 2.0))
    assert (at - torch.tensor([[54.5], [24.5]])).abs().max() <= 0.5
    at = pointed(rotated(before, KINDS, 90))
    # A quarter anticlockwise: 7 to the right of the middle becomes 7 above, 8 above becomes 8 to the left.
    torch.testing.assert_close(at, torch.tensor([[20.0 - 8], [20.0 - 7]]).expand_as(at), atol=1e-4, rtol=0)


def test_what_is_nearer_looks_larger():
    after = scaled(sample(6, 8), KINDS, 2.0)
    before = {name: tensor.repeat_interleave(2, -1).repeat_interleave(2, -2) for name, tensor in sample(6, 8).items()}
    assert after["image"].shape == (3, 12, 16)
    for name in ("seg", "edge", "normal"):
        assert torch.equal(after[name], before[name]), name
    torch.testing.assert_close(after["depth"], before["depth"] / 2)
    for name in ("inverse", "ins", "disp"):
        torch.testing.assert_close(after[name], before[name] * 2)
    torch.testing.assert_close(after["depth"] * after["inverse"], torch.ones(1, 12, 16))


def test_another_resolution_changes_lengths_in_pixels_and_no_depth():
    before = sample(6, 8)
    after = resized(before, KINDS, (3, 24))
    rows, columns = torch.tensor([1, 3, 5]), torch.arange(24) // 3
    for name in ("seg", "depth", "inverse", "normal"):
        assert torch.equal(after[name], before[name][..., rows[:, None], columns]), name
    torch.testing.assert_close(after["disp"], 3 * before["disp"][..., rows[:, None], columns])
    expected = before["ins"][..., rows[:, None], columns] * torch.tensor([3, 0.5]).view(2, 1, 1)
    torch.testing.assert_close(after["ins"], expected)
    assert after["seg"].dtype == torch.int64


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize(("old", "new"), [(5, 9), (9, 5), (7, 7), (100, 67), (1, 4), (4, 1)])
def test_labels_come_from_the_pixel_nearest_to_where_the_image_comes_from(old: int, new: int, corners: bool):
    """A ramp that is interpolated says where each pixel comes from."""
    ramp = torch.arange(old).double().view(1, 1, 1, old)
    truth = functional.interpolate(ramp, size=(1, new), mode="bilinear", align_corners=corners).flatten()
    found = transforms._nearest(old, new, corners)
    assert (found - truth).abs().max() <= 0.5 + 1e-9


def test_smooth_normals_have_length_one_and_stay_invalid():
    normal = functional.normalize(torch.randn(3, 8, 8, generator=draws()), dim=0)
    normal[:, 2:4, 3:5] = 0
    before = {"image": torch.rand(3, 8, 8), "normal": normal}
    after = resized(before, {"normal": SMOOTH_NORMAL}, (16, 16))["normal"]
    invalid = (normal == 0).all(0).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal((after == 0).all(0), invalid)
    torch.testing.assert_close(after.norm(dim=0)[~invalid], torch.ones(16, 16)[~invalid])
    # Beside a hole the direction is that of the valid neighbours, not bent.
    flat = torch.tensor([0, 0.6, 0.8]).view(3, 1, 1).expand(3, 8, 8) * (normal != 0).any(0)
    after = resized({**before, "normal": flat}, {"normal": SMOOTH_NORMAL}, (16, 16))["normal"]
    torch.testing.assert_close(after[:, ~invalid], torch.tensor([[0], [0.6], [0.8]]).expand(3, int((~invalid).sum())))


def test_raw_normals_are_interpolated_as_plain_maps():
    normal = functional.normalize(torch.randn(3, 8, 8, generator=draws()), dim=0)
    after = resized({"image": normal, "normal": normal}, {"normal": RAW_NORMAL}, (16, 16), corners=True)["normal"]
    expected = functional.interpolate(normal[None], size=(16, 16), mode="bilinear", align_corners=True)[0]
    torch.testing.assert_close(after, expected)


def test_a_window_is_where_it_was_asked_for():
    after = cropped(sample(6, 8), top=1, left=3, height=2, width=4)
    assert after["seg"].tolist() == [[11, 12, 13, 14], [19, 20, 21, 22]]
    assert after["image"].shape == (3, 2, 4)


def test_padding_is_centred_and_labelled_as_nothing():
    before = sample(2, 3)
    after = padded(before, KINDS, (5, 6))
    inside = torch.zeros(5, 6, dtype=torch.bool)
    inside[1:3, 1:4] = True
    outside = {"image": 0, "seg": -1, "edge": 255, "depth": 0, "inverse": 0, "normal": 0, "ins": nan, "disp": nan}
    for name, value in outside.items():
        tensor = after[name]
        assert torch.equal(tensor[..., 1:3, 1:4], before[name])
        margin = tensor[..., ~inside].double()
        torch.testing.assert_close(margin, torch.full_like(margin, value), equal_nan=True, atol=0, rtol=0)


@pytest.mark.parametrize("size", [(2, 6), (5, 3)])
def test_padding_one_side_alone_is_padding(size: tuple[int, int]):
    after = padded(sample(2, 3), KINDS, size)
    assert all(tuple(tensor.shape[-2:]) == size for tensor in after.values())
    assert int((after["seg"] == -1).sum()) == size[0] * size[1] - 6


@pytest.mark.parametrize("kind", [SMOOTH_NORMAL, RAW_NORMAL])
def test_there_is_no_surface_in_padding_of_any_kind_of_normal(kind: transforms.Kind):
    before = {"image": torch.ones(3, 2, 2), "normal": torch.ones(3, 2, 2)}
    after = padded(before, {"normal": kind}, (4, 4))["normal"]
    assert float(after.sum()) == 12


def test_an_image_that_does_not_fit_is_refused():
    with pytest.raises(IsonomyError, match="An image of 6 x 8 does not fit into 6 x 7"):
        padded(sample(6, 8), KINDS, (6, 7))


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarter_turns_are_exact(quarters: int):
    before = sample(7, 7)
    after = rotated(before, KINDS, 90 * quarters)
    for name in ("image", "seg", "edge", "depth", "inverse", "disp"):
        torch.testing.assert_close(after[name], torch.rot90(before[name], quarters, (-2, -1)), atol=1e-5, rtol=0)
    x, y, z = (torch.rot90(plane, quarters) for plane in before["normal"])
    for _ in range(quarters % 4):
        x, y = -y, x  # y is up
    torch.testing.assert_close(after["normal"], torch.stack([x, y, z]), atol=1e-6, rtol=0)


def test_a_turn_leaves_nothing_in_the_corners_and_the_middle_in_place():
    before = sample(21, 31)
    after = rotated(before, KINDS, 10)
    assert after["seg"][10, 15] == before["seg"][10, 15]
    assert after["seg"][0, 0] == -1
    assert after["edge"][0, 0] == 255
    assert after["depth"][0, 0, 0] == 0
    assert (after["image"][:, 0, 0] == 0).all()
    assert after["ins"][:, 0, 0].isnan().all()
    assert (after["seg"] == -1).float().mean() < 0.2
    lengths = after["normal"].norm(dim=0)
    torch.testing.assert_close(lengths[lengths > 0], torch.ones(int((lengths > 0).sum())))


def test_a_small_turn_is_anticlockwise():
    image = torch.zeros(3, 21, 21)
    image[:, 10, 18] = 1  # right of the middle
    after = rotated({"image": image}, {}, 20)["image"][0]
    row, column = divmod(int(after.argmax()), 21)
    assert row == 10 - round(8 * torch.sin(torch.tensor(radians(20))).item())
    assert column == 10 + round(8 * torch.cos(torch.tensor(radians(20))).item())


@pytest.mark.parametrize("seed", range(12))
def test_scale_crop_flip_is_a_window_at_full_size(seed: int):
    """Every pixel's number says where it is from, and every depth by how much the camera came nearer."""
    height, width = 24, 36
    kinds = {"seg": CLASSES, "depth": DEPTH, "inverse": INVERSE}
    column = torch.arange(width).expand(height, width)
    before = {
        "image": column.expand(3, height, width).float(),
        "seg": plane(height, width),
        "depth": torch.full((1, height, width), 6.0),
        "inverse": torch.full((1, height, width), 0.1),
    }
    after = scale_crop_flip(before, kinds, draws(seed))
    scale = round(float(6 / after["depth"][0, 0, 0]), 5)
    assert scale in (1.0, 1.2, 1.5)
    torch.testing.assert_close(after["depth"], torch.full((1, height, width), 6 / scale))
    torch.testing.assert_close(after["inverse"], torch.full((1, height, width), 0.1 * scale))
    rows, columns = after["seg"] // width, after["seg"] % width
    assert int(rows.max() - rows.min()) + 1 == int(height / scale)
    assert int(columns.max() - columns.min()) + 1 == int(width / scale)
    assert (rows.diff(dim=0) >= 0).all()
    # The image went where its labels did.
    assert (after["image"][0] - columns).abs().max() <= 0.5 + 1e-4
    mirrored = bool(columns[0, 0] > columns[0, -1])
    assert ((columns.diff(dim=1) <= 0) if mirrored else (columns.diff(dim=1) >= 0)).all()


def test_scale_crop_flip_draws_every_scale_and_both_sides():
    before = {"image": torch.zeros(3, 6, 6), "seg": plane(6, 6), "depth": torch.ones(1, 6, 6)}
    found = set()
    for seed in range(60):
        after = scale_crop_flip(before, {"seg": CLASSES, "depth": DEPTH}, draws(seed))
        found.add((round(float(1 / after["depth"][0, 0, 0]), 1), bool(after["seg"][0, 0] > after["seg"][0, -1])))
    assert found == {(scale, side) for scale in (1.0, 1.2, 1.5) for side in (False, True)}


def test_the_same_draws_give_the_same_sample():
    before = sample(24, 36)
    for change in (scale_crop_flip, lambda *given: random_scale_crop(*given, size=(12, 12))):
        one, two = change(before, KINDS, draws(3)), change(before, KINDS, draws(3))
        for name in before:
            torch.testing.assert_close(one[name], two[name], atol=0, rtol=0, equal_nan=True)


def test_random_scale_crop_scales_within_its_range_and_divides_depth():
    scales = []
    for seed in range(40):
        before = {"image": torch.rand(3, 20, 30), "depth": torch.full((1, 20, 30), 3.0)}
        after = random_scale_crop(before, KINDS, draws(seed), size=(24, 24))
        scale = float(3 / after["depth"][0, 0, 0])
        assert after["image"].shape[-2:] == (min(24, round(20 * scale)), min(24, round(30 * scale)))
        scales.append(scale)
    assert min(scales) >= 0.5
    assert max(scales) <= 2
    assert min(scales) < 0.75
    assert max(scales) > 1.75


def test_a_window_with_one_class_is_drawn_again():
    """A corner has all of the second class; windows without it are turned down while there are tries."""
    labels = torch.zeros(40, 40, dtype=torch.int64)
    labels[:12, :12] = 1
    before = {"image": torch.zeros(3, 40, 40), "seg": labels}

    def varied(tries: int) -> int:
        windows = (
            random_scale_crop(before, KINDS, draws(seed), (12, 12), scales=(1.0, 1.0), tries=tries)["seg"]
            for seed in range(60)
        )
        return sum(transforms._varied(window, 0.75) for window in windows)

    assert varied(tries=10) > 2 * varied(tries=0) > 0


def test_a_class_may_cover_less_than_three_quarters_of_what_is_labelled():
    labels = torch.full((10, 10), -1)
    labels[:4, 0], labels[0, 1] = 0, 1
    assert not transforms._varied(labels, 0.75)  # 4 of 5
    labels[1, 1] = 1
    assert transforms._varied(labels, 0.75)  # 4 of 6
    assert not transforms._varied(torch.full((10, 10), -1), 0.75)
    assert not transforms._varied(torch.zeros(10, 10), 0.75)


def test_corners_stay_where_they_are():
    before = {"image": torch.zeros(3, 5, 5), "seg": plane(5, 5)}
    assert resized(before, KINDS, (2, 3), corners=True)["seg"].tolist() == [[0, 2, 4], [20, 22, 24]]
    assert resized(before, KINDS, (1, 1), corners=True)["seg"].tolist() == [[0]]


def test_half_of_the_windows_are_mirrored():
    before = {"image": torch.zeros(3, 2, 2), "seg": plane(2, 2)}
    flips = [scale_crop_flip(before, KINDS, draws(seed), scales=(1.0,))["seg"][0, 0] == 1 for seed in range(400)]
    assert 160 < sum(flips) < 240  # four standard deviations


@pytest.mark.parametrize(("share", "windows"), [(74, 1), (75, 11), (76, 11)])
def test_up_to_ten_other_windows_are_drawn_where_a_class_covers_three_quarters(
    share: int, windows: int, monkeypatch: pytest.MonkeyPatch
):
    drawn = []
    cut = transforms.cropped
    monkeypatch.setattr(transforms, "cropped", lambda *given: drawn.append(given) or cut(*given))
    labels = (torch.arange(100) < share).long().view(10, 10)
    random_scale_crop({"image": torch.zeros(3, 10, 10), "seg": labels}, KINDS, draws(), (10, 10), scales=(1.0, 1.0))
    assert len(drawn) == windows


def test_nothing_is_changed_in_place():
    before = sample(12, 16)
    kept = {name: tensor.clone() for name, tensor in before.items()}
    flipped(before, KINDS)
    rotated(before, KINDS, 7)
    scale_crop_flip(before, KINDS, draws())
    random_scale_crop(before, KINDS, draws(), (8, 8))
    padded(before, KINDS, (20, 20))
    assert all(torch.equal(before[name], kept[name]) for name in before)
