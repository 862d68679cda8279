import os

import numpy as np
import pytest
from scipy.io import savemat

from isonomy.bench.data import pascal_parts
from isonomy.errors import IsonomyError

SIZE = (5, 8)


def mask(rows, columns):
    found = np.zeros(SIZE, dtype=np.uint8)
    found[rows, columns] = 1
    return found


def matrix(rows, fields):
    """What MATLAB's struct arrays are in a file: 1 x N, or the empty matrix."""
    if not rows:
        return np.zeros((0, 0))
    found = np.zeros((1, len(rows)), dtype=[(field, "O") for field in fields])
    for i, row in enumerate(rows):
        found[0, i] = row
    return found


def write(path, objects):
    """Objects: (class, number, mask, [(part, mask)])."""
    fields = ("class", "class_ind", "mask", "parts")
    rows = [(*row[:3], matrix(row[3], ("part_name", "mask"))) for row in objects]
    savemat(path, {"anno": {"imname": path.stem, "objects": matrix(rows, fields)}}, do_compression=True)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pascal5" / "parts-v1"


MERGED = {
    1: "head hair lear rear lebrow rebrow leye reye mouth nose",
    2: "torso neck",
    3: "luarm ruarm",
    4: "llarm rlarm lhand rhand",
    5: "luleg ruleg",
    6: "llleg rlleg lfoot rfoot",
}


def test_24_parts_become_6():
    assert {name: part for part, names in MERGED.items() for name in names.split()} == pascal_parts.PARTS


def test_people_are_drawn_and_nobody_else(tmp_path):
    everything = mask(slice(None), slice(None))
    path = write(
        tmp_path / "a.mat",
        [
            ("dog", 12, everything, [("head", everything), ("lfpa", everything)]),
            ("person", 15, everything, [("torso", mask(slice(1, 4), slice(0, 4))), ("head", mask(1, slice(0, 2)))]),
            ("person", 15, everything, []),
            ("person", 15, everything, [("lfoot", mask(4, 7)), ("rhand", mask(3, 3))]),
        ],
    )
    expected = np.zeros(SIZE, dtype=np.uint8)
    expected[1:4, 0:4] = 2
    expected[1, 0:2] = 1  # drawn over the torso
    expected[4, 7] = 6
    expected[3, 3] = 4  # of the last person, over the first one's torso
    found = pascal_parts.parts(path, 0, SIZE)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_one_object_or_none_is_read_too(tmp_path):
    one = write(tmp_path / "one.mat", [("person", 15, mask(0, 0), [("neck", mask(0, 0))])])
    none = write(tmp_path / "none.mat", [])
    assert pascal_parts.parts(one, 0, SIZE).sum() == 2
    assert pascal_parts.parts(none, 0, SIZE).tolist() == np.zeros(SIZE, dtype=int).tolist()


def test_maps_are_made_once_for_each_state_of_a_file(tmp_path, monkeypatch, cache):
    made = []
    parsed = pascal_parts.parsed
    monkeypatch.setattr(pascal_parts, "parsed", lambda *given: made.append(given[0].name) or parsed(*given))
    folder = tmp_path / "data"
    folder.mkdir()
    path = write(folder / "a.mat", [("person", 15, mask(0, 0), [("neck", mask(0, 0))])])
    first = pascal_parts.parts(path, 0, SIZE)
    for _ in range(2):
        np.testing.assert_array_equal(pascal_parts.parts(path, 0, SIZE), first)
    assert made == ["a.mat"]
    write(path, [("person", 15, mask(0, 0), [("head", mask(2, slice(0, 3)))])])
    changed = pascal_parts.parts(path, 0, SIZE)
    assert made == ["a.mat"] * 2
    assert (changed.sum(), changed[2].tolist()) == (3, [1, 1, 1, 0, 0, 0, 0, 0])
    # Nothing is written beside the user's files.
    assert [each.name for each in folder.iterdir()] == ["a.mat"]
    assert len(list(cache.iterdir())) == 2
    os.utime(path, ns=(0, 0))  # of the same size, but another time
    pascal_parts.parts(path, 0, SIZE)
    assert made == ["a.mat"] * 3


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"nothing"])
def test_a_spoilt_map_is_made_again(tmp_path, cache, content):
    path = write(tmp_path / "a.mat", [("person", 15, mask(0, 0), [("neck", mask(0, 0))])])
    first = pascal_parts.parts(path, 0, SIZE)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(content)
    np.testing.assert_array_equal(pascal_parts.parts(path, 0, SIZE), first)
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mat", [])
    (tmp_path / "file").touch()
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path / "file"))
    with pytest.raises(IsonomyError, match=r"ISONOMY_CACHE .* is not a folder"):
        pascal_parts.parts(path, 0, SIZE)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([("tail", mask(0, 0))], "'tail' is no part of a person"),
        ([("head", np.ones((8, 5), dtype=np.uint8))], r"its shape is \(8, 5\), its image wants \(5, 8\)"),
    ],
)
def test_parts_that_cannot_be_are_damage(tmp_path, parts, told, cache):
    path = write(tmp_path / "a.mat", [("person", 15, mask(0, 0), parts)])
    with pytest.raises(IsonomyError, match=rf"a\.mat \(sample 4\) is damaged \({told}"):
        pascal_parts.parts(path, 4, SIZE)
    assert not cache.exists()


def test_files_that_end_anywhere_too_early_are_damaged(tmp_path):
    path = write(tmp_path / "a.mat", [("person", 15, mask(0, 0), [("neck", mask(0, 0))])])
    labels = tmp_path / "b.mat"
    savemat(labels, {"LabelMap": np.arange(40, dtype=np.uint16).reshape(SIZE)}, do_compression=True)
    readers = {path: pascal_parts.parts, labels: pascal_parts.label_map}
    for file, read in readers.items():
        whole = file.read_bytes()
        for length in range(0, len(whole), 7):
            file.write_bytes(whole[:length])
            with pytest.raises(IsonomyError, match=rf"{file.name} \(sample 2\) is damaged"):
                read(file, 2, SIZE)
    path.unlink()
    with pytest.raises(IsonomyError, match=r"a\.mat \(sample 2\) is damaged"):
        pascal_parts.parts(path, 2, SIZE)


def test_label_maps_are_categories_of_their_image(tmp_path):
    categories = np.arange(420, 460, dtype=np.uint16).reshape(SIZE)
    savemat(tmp_path / "a.mat", {"LabelMap": categories})
    found = pascal_parts.label_map(tmp_path / "a.mat", 0, SIZE)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, categories)
    with pytest.raises(IsonomyError, match=r"damaged \(its shape is \(5, 8\), its image wants \(8, 5\)"):
        pascal_parts.label_map(tmp_path / "a.mat", 0, (8, 5))
    savemat(tmp_path / "b.mat", {"Labels": categories})
    with pytest.raises(IsonomyError, match=r"damaged .*LabelMap"):
        pascal_parts.label_map(tmp_path / "b.mat", 0, SIZE)
