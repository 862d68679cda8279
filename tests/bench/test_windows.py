import pytest
import torch

from isonomy.bench.data import transforms, windows
from isonomy.errors import IsonomyError

KINDS = {
    "seg": transforms.CLASSES,
    "depth": transforms.DEPTH,
    "normal": transforms.NORMAL,
    "edge": transforms.MASK,
}
HEIGHT, WIDTH = 40, 60


def sample():
    """Columns of ten classes from left to right, everything at two metres and facing to the right."""
    seg = (torch.arange(WIDTH) * 10 // WIDTH).expand(HEIGHT, WIDTH)
    return {
        "image": torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)),
        "seg": seg.clone(),
        "depth": torch.full((1, HEIGHT, WIDTH), 2.0),
        "normal": torch.tensor([0.6, 0.0, 0.8]).view(3, 1, 1).expand(3, HEIGHT, WIDTH).clone(),
        "edge": (seg == 4).long(),
    }


def test_windows_keep_to_the_geometry_of_the_scene():
    mirrored, factors = set(), []
    for seed in range(24):
        found = windows.augmented(sample(), KINDS, torch.Generator().manual_seed(seed), (32, 48))
        factor = 2.0 / float(found["depth"].unique())
        factors.append(factor)
        size = min(round(HEIGHT * factor), 32), min(round(WIDTH * factor), 48)
        assert all(tensor.shape[-2:] == size for tensor in found.values())
        steps = found["seg"][0].diff()
        right_to_left = bool((steps <= 0).all())
        assert right_to_left or (steps >= 0).all()
        x, y, z = found["normal"].flatten(1).unique(dim=1).flatten().tolist()
        assert x == pytest.approx(-0.6 if right_to_left else 0.6)
        assert (y, z) == pytest.approx((0.0, 0.8))
        assert torch.equal(found["edge"], (found["seg"] == 4).long())
        assert 0 <= found["image"].min() <= found["image"].max() <= 1
        mirrored.add(right_to_left)
    assert mirrored == {True, False}
    assert all(0.5 <= factor <= 2 for factor in factors)
    assert min(factors) < 0.8
    assert max(factors) > 1.6


def test_windows_depend_on_the_draws_alone():
    first, again = (windows.augmented(sample(), KINDS, torch.Generator().manual_seed(5), (32, 48)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_what_is_smaller_lies_in_the_middle_of_mean_grey_without_labels():
    given = sample()
    found = windows.centred(given, KINDS, (43, 64))
    inside = torch.zeros(43, 64, dtype=torch.bool)
    inside[1 : 1 + HEIGHT, 2 : 2 + WIDTH] = True
    for name, tensor in found.items():
        torch.testing.assert_close(tensor[..., inside], given[name].flatten(-2), rtol=0, atol=0)
    grey = torch.tensor([0.485, 0.456, 0.406])
    torch.testing.assert_close(found["image"][:, ~inside], grey[:, None].expand(-1, int((~inside).sum())))
    for name, pad in (("seg", -1), ("depth", 0), ("normal", 0), ("edge", 255)):
        assert (found[name][..., ~inside] == pad).all()
    with pytest.raises(IsonomyError, match="40 x 60 does not fit into 39 x 64"):
        windows.centred(given, KINDS, (39, 64))
