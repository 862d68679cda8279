import numpy as np
import pytest
import torch
from PIL import Image

from isonomy.bench.data import decode
from isonomy.bench.data.roots import Layout
from isonomy.errors import IsonomyError

LAYOUT = Layout("these", "these/\n  a.txt", "Ask somebody.")


def test_lists_are_read_line_by_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"0001\r\n  0002 \n\n0003")
    assert decode.names(LAYOUT, tmp_path / "a.txt") == ["0001", "0002", "0003"]
    with pytest.raises(
        IsonomyError, match=r"'these': .*/b\.txt is missing\. Ask somebody\. Expected:\nthese/\n  a\.txt$"
    ):
        decode.names(LAYOUT, tmp_path / "b.txt")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(IsonomyError, match=r"c\.txt cannot be read"):
        decode.names(LAYOUT, tmp_path / "c.txt")


def test_the_first_file_that_is_missing_is_named(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "c.png").touch()
    decode.require_all(LAYOUT, tmp_path, ["c.png", "a.png"])
    with pytest.raises(IsonomyError, match=r"b\.png is missing"):
        decode.require_all(LAYOUT, tmp_path, ["a.png", "b.png", "d.png"])
    with pytest.raises(IsonomyError, match=r"nowhere is missing"):
        decode.require_all(LAYOUT, tmp_path / "nowhere", [])


def test_images_of_any_mode_become_rgb_in_0_to_1(tmp_path):
    colours = np.array([[[255, 0, 51], [0, 102, 0]]], dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    Image.fromarray(np.array([[51, 255]], dtype=np.uint8)).save(tmp_path / "grey.png")
    expected = torch.tensor([[[1.0, 0.0]], [[0.0, 0.4]], [[0.2, 0.0]]])
    torch.testing.assert_close(decode.image(tmp_path / "rgb.png", 0), expected, rtol=0, atol=1e-7)
    grey = torch.tensor([[0.2, 1.0]]).expand(3, 1, 2)
    torch.testing.assert_close(decode.image(tmp_path / "grey.png", 0), grey, rtol=0, atol=1e-7)


def test_pictures_give_their_numbers_and_a_palettes_indices(tmp_path):
    numbers = np.array([[0, 7, 255], [20, 1, 2]], dtype=np.uint8)
    with_palette = Image.fromarray(numbers, mode="P")
    with_palette.putpalette(list(range(255, -1, -1)) * 3)
    with_palette.save(tmp_path / "palette.png")
    Image.fromarray(numbers).save(tmp_path / "grey.png")
    for name in ("palette.png", "grey.png"):
        np.testing.assert_array_equal(decode.picture(tmp_path / name, (2, 3)), numbers)
    with pytest.raises(ValueError, match=r"its shape is \(2, 3\), its image wants \(3, 2\)"):
        decode.picture(tmp_path / "grey.png", (3, 2))
    with pytest.raises(ValueError, match=r"wants \(2, 3, 3\)"):
        decode.picture(tmp_path / "grey.png", (2, 3), channels=3)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, np.int64])
def test_arrays_are_of_any_kind_of_number_and_finite(tmp_path, dtype):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    for name, array in {"plain": values, "channel": values[..., None]}.items():
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(decode.numbers(tmp_path / f"{name}.npy", (2, 3)), values)
    if np.issubdtype(dtype, np.floating):
        values[1, 1] = np.nan
        np.save(tmp_path / "nan.npy", values)
        with pytest.raises(ValueError, match="not finite"):
            decode.numbers(tmp_path / "nan.npy", (2, 3))


def test_other_labels_than_there_are_get_refused():
    kept = decode.within(np.array([[0.0, 40.0]]), range(41))
    assert kept.dtype == np.int64
    assert kept.tolist() == [[0, 40]]
    for spoilt, named in ((41, "41"), (-1, "-1"), (0.5, "0.5")):
        with pytest.raises(ValueError, match=f"it holds {named}, which is none of 0, …, 40"):
            decode.within(np.array([[0.0, spoilt]]), range(41))


def test_directions_are_unit_or_nothing():
    values = np.array([[[0.6, 0.0, -0.8], [0.3, 0.4, 0.0], [0.03, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    found = decode.directions(values, least=0.05)
    expected = torch.tensor([[0.6, 0.0, -0.8], [0.6, 0.8, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(found[:, 0].T, expected)
    torch.testing.assert_close(decode.directions(values)[:, 0, 2], torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="a component is 2, beyond 1"):
        decode.directions(2.5 * values)


def test_bytes_are_vectors_from_minus_1_to_1():
    np.testing.assert_allclose(decode.from_bytes(np.array([0, 51, 255], dtype=np.uint8)), [-1, -0.6, 1], atol=1e-15)


def test_whatever_goes_wrong_is_the_files_fault_but_our_own_errors_pass(tmp_path):
    path = tmp_path / "x.png"
    for error, told in ((KeyError("anno"), "'anno'"), (MemoryError(), "MemoryError"), (ValueError("odd"), "odd")):
        with pytest.raises(IsonomyError, match=rf"x\.png \(sample 7\) is damaged \({told}\)"), decode.reading(path, 7):
            raise error
    with pytest.raises(IsonomyError, match=r"^own$"), decode.reading(path, 7):
        raise IsonomyError("own")
    with pytest.raises(KeyboardInterrupt), decode.reading(path, 7):
        raise KeyboardInterrupt
    for content in (b"", b"<html>quota exceeded</html>"):
        path.write_bytes(content)
        with pytest.raises(IsonomyError, match=r"x\.png \(sample 3\) is damaged"):
            decode.image(path, 3)


def test_a_sample_is_in_the_lists_once_and_what_marks_their_encoding_is_no_name(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa\nb\n")
    (tmp_path / "val.txt").write_text("c")
    assert decode.named(LAYOUT, tmp_path, "train") == ["a", "b"]
    assert decode.named(LAYOUT, tmp_path, "test") == ["c"]
    for split, content in (("val", "c\nb"), ("train", "a\nb\na")):
        (tmp_path / f"{split}.txt").write_text(content)
        with pytest.raises(IsonomyError, match=r"the lists in .* name (a|b) twice"):
            decode.named(LAYOUT, tmp_path, "test")
        (tmp_path / "val.txt").write_text("c")


def test_what_is_hidden_in_a_folder_does_not_count_and_a_file_is_none(tmp_path):
    for name in ("a.png", "._a.png", ".DS_Store"):
        (tmp_path / name).touch()
    assert decode.inside(LAYOUT, tmp_path) == {"a.png"}
    with pytest.raises(IsonomyError, match=r"a\.png cannot be read \((.|\n)*Expected:\nthese/"):
        decode.inside(LAYOUT, tmp_path / "a.png")


def test_a_single_bit_is_black_or_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    with Image.open(tmp_path / "bits.png") as opened:
        assert opened.mode == "1"
    assert decode.picture(tmp_path / "bits.png", (1, 2)).tolist() == [[255, 0]]


def test_images_of_16_bits_are_refused_and_not_made_white(tmp_path):
    Image.fromarray(np.array([[4096, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(IsonomyError, match=r"a\.png \(sample 3\) is damaged \(it is of mode I.*8 bits are wanted"):
        decode.image(tmp_path / "a.png", 3)


@pytest.mark.parametrize("dtype", [np.complex64, "U3"])
def test_what_is_no_number_is_refused(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.ones((2, 3)).astype(dtype))
    with pytest.raises(ValueError, match="not numbers"):
        decode.numbers(tmp_path / "a.npy", (2, 3))
