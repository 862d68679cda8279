import numpy as np
import pytest
import torch
from PIL import Image

from isonomy import IsonomyError
from isonomy.bench.data import photos


def saved(path, array, **options):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path, **options)
    return path


def test_rows_columns_and_channels_stay_what_they_are(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (8, 16, 3))
    image = photos.photo(saved(tmp_path / "a.png", array), 0, (8, 16))
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image.numpy(), array.transpose(2, 0, 1) / 255, atol=1e-6)


def test_proportions_are_given_up_and_nothing_is_cropped(tmp_path):
    array = np.zeros((10, 40, 3))
    array[:, :20, 0], array[5:, :, 2] = 200, 100
    image = photos.photo(saved(tmp_path / "a.png", array), 0, (20, 8))
    assert image.shape == (3, 20, 8)
    assert image[0, :, :3].min() == image[0, :, :3].max() == pytest.approx(200 / 255)
    assert image[0, :, 5:].max() == 0
    assert image[2, :8].max() == 0
    assert image[2, 12:].min() == pytest.approx(100 / 255)


def test_a_fine_pattern_becomes_its_mean_and_no_alias(tmp_path):
    array = np.zeros((64, 64, 3))
    array[:, ::2] = 255
    image = photos.photo(saved(tmp_path / "a.png", array), 0, (8, 8))
    assert (image - 0.5).abs().max() < 0.06


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_any_kind_of_picture_has_three_channels(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (9, 9), (153, 153, 153)).convert(mode).save(path)
    image = photos.photo(path, 0, (8, 8))
    assert image.shape == (3, 8, 8)
    assert (image - 153 / 255).abs().max() < 0.02


def test_what_is_no_picture_is_named(tmp_path):
    whole = saved(tmp_path / "whole.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3))).read_bytes()
    broken = {"cut.jpg": whole[:500], "page.jpg": b"<!DOCTYPE html><html>quota</html>", "empty.jpg": b""}
    for index, (name, content) in enumerate(broken.items()):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(IsonomyError, match=rf"{name} \(sample {index}\) is damaged"):
            photos.photo(tmp_path / name, index, (8, 8))
    with pytest.raises(IsonomyError, match=r"begins with b'<!DOCTYPE html>'"):
        photos.photo(tmp_path / "page.jpg", 0, (8, 8))
    with pytest.raises(IsonomyError, match=r"gone.jpg \(sample 7\)"):
        photos.photo(tmp_path / "gone.jpg", 7, (8, 8))


@pytest.mark.parametrize(
    ("size", "batch_size", "workers", "message"),
    [
        ((7, 64), 1, 0, "size of faces is 7x64"),
        ((64, 64, 3), 1, 0, "size of faces is 64x64x3"),
        ((8, 8), 0, 0, "batch_size of faces is 0: it must be 1 or more"),
        ((8, 8), 1, -1, "workers of faces is -1: it must be 0 or more"),
    ],
)
def test_options_out_of_range_are_refused(size, batch_size, workers, message):
    photos.check_options("faces", (8, 8), 1, 0)
    with pytest.raises(IsonomyError, match=message):
        photos.check_options("faces", size, batch_size, workers)
