"""Other light and colours, against the standard library's HSV."""

from __future__ import annotations

import colorsys

import pytest
import torch
from torch import Tensor

from isonomy.bench.data.photometric import photometric, with_hue, with_saturation


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image() -> Tensor:
    made = torch.rand(3, 6, 7, generator=draws(0), dtype=torch.float64)
    made[:, 0, 0] = 0  # black, grey and white have no hue
    made[:, 0, 1] = 0.4
    made[:, 0, 2] = 1
    made[:, 0, 3] = torch.tensor([1.0, 0, 0])
    return made


def by_hand(image: Tensor, factor: float, turn: float) -> Tensor:
    rows = []
    for red, green, blue in image.flatten(1).T.tolist():
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        rows.append(colorsys.hsv_to_rgb((hue + turn) % 1, min(saturation * factor, 1), value))
    return torch.tensor(rows, dtype=image.dtype).T.reshape(image.shape)


@pytest.mark.parametrize("turn", [-0.1, 0.07, 1 / 3, 0.5])
def test_hue(turn: float):
    torch.testing.assert_close(with_hue(image(), turn), by_hand(image(), 1, turn))


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.5])
def test_saturation(factor: float):
    torch.testing.assert_close(with_saturation(image(), factor), by_hand(image(), factor, 0))


def test_every_change_happens_in_about_half_of_the_images_within_its_range():
    grey = torch.full((3, 2, 2), 0.4, dtype=torch.float64)
    red = torch.tensor([0.5, 0.15, 0.15], dtype=torch.float64).view(3, 1, 1)  # nothing drives it out of range
    changed, brightness = 0, []
    saturations, hues = [], []
    for seed in range(300):
        found = photometric(grey, draws(seed))
        assert (found[0] == found[2]).all()  # no change of colours makes grey coloured
        brightness.append(float(found[0, 0, 0]))
        colour = photometric(red, draws(seed)).flatten().tolist()
        hue, saturation, _ = colorsys.rgb_to_hsv(*colour)
        hues.append((hue + 0.5) % 1 - 0.5)
        saturations.append(saturation)
        changed += colour == red.flatten().tolist()
    assert 0.03 < changed / 300 < 0.1  # four coins: 1/16
    assert 0.2 < sum(value == 0.4 for value in brightness) / 300 < 0.3
    assert (0.4 - 32 / 255) * 0.5 <= min(brightness) < 0.2
    assert 0.7 < max(brightness) <= (0.4 + 32 / 255) * 1.5
    assert -0.1001 < min(hues) < -0.09
    assert 0.09 < max(hues) < 0.1001
    assert 0.4 < sum(abs(hue) < 1e-9 for hue in hues) / 300 < 0.6
    # Of 0.7, half and half as much again; brightness, added to all channels, changes it a little too.
    assert 0.28 <= min(saturations) < 0.4
    assert max(saturations) > 0.999


def test_images_stay_in_range_and_draws_decide():
    for seed in range(50):
        found = photometric(image(), draws(seed))
        assert found.min() >= 0
        assert found.max() <= 1
        assert torch.equal(found, photometric(image(), draws(seed)))
