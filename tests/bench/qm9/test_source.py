import os

import numpy as np
import pytest
import torch

from isonomy import IsonomyError
from isonomy.bench.data.qm9 import collated, raw, source
from tests.bench.qm9 import by_hand, pyg


def same(one, other):
    return all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def cached(tmp_path):
    return sorted((tmp_path / "cache" / "qm9").iterdir())


def test_molecules_are_parsed_once(root, tmp_path, monkeypatch):
    first = source.load(root, False)
    assert same(first, raw.read(root / "raw", False))
    monkeypatch.setattr(raw, "read", lambda *_: pytest.fail("parsed again"))
    assert same(source.load(root, False), first)
    assert len(cached(tmp_path)) == 1
    assert sorted(path.name for path in root.rglob("*")) == ["gdb9.sdf", "gdb9.sdf.csv", "raw", "uncharacterized.txt"]


def test_a_file_that_has_changed_is_parsed_again(root):
    before = source.load(root, False)
    table = root / "raw" / "gdb9.sdf.csv"
    stat = table.stat()
    table.write_text(by_hand.TABLE.replace("1.8511", "1.9511"))
    os.utime(table, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    after = source.load(root, False)
    assert (before.values[1, 0], after.values[1, 0]) == (1.8511, 1.9511)


def test_perceived_molecules_are_others(root):
    assert not source.load(root, False).features[:, 6:10].any()
    assert source.load(root, True).features[:, 6:10].any()
    assert not source.load(root, False).features[:, 6:10].any()


@pytest.mark.parametrize("spoil", [lambda content: content[:500], lambda content: b"", lambda content: b"no arrays"])
def test_a_damaged_cache_is_named(root, tmp_path, spoil):
    source.load(root, False)
    (path,) = cached(tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(IsonomyError, match=rf"{path} cannot be read .*: delete it, and it is made anew"):
        source.load(root, False)
    path.unlink()
    source.load(root, False)


@pytest.mark.parametrize("name", raw.FILES)
def test_a_partial_tree_is_refused_with_the_first_missing_path(root, name):
    (root / "raw" / name).unlink()
    with pytest.raises(IsonomyError) as caught:
        source.load(root, False)
    assert f"{root / 'raw' / name} is missing" in str(caught.value)
    assert source.LAYOUT.tree in str(caught.value)


def move_to_pt(root, path, values):
    save = pyg.save_collated if path.startswith("processed") else lambda at, molecules: torch.save(molecules, at)
    save(root / path, pyg.listed(values))
    for name in raw.FILES:
        (root / "raw" / name).unlink()


@pytest.mark.parametrize("path", ["raw/qm9_v3.pt", "processed/data_v3.pt"])
def test_files_of_pytorch_geometric_do_instead(root, path):
    graphs = source.load(root, False)
    move_to_pt(root, path, dict(zip(graphs.numbers.tolist(), graphs.values.tolist(), strict=True)))
    assert same(source.load(root, False), collated.read(root / path))
    with pytest.raises(
        IsonomyError, match=rf"Option perceive of qm9 needs raw/gdb9.sdf, and .* has {path.split('/')[1]}: leave"
    ):
        source.load(root, True)


def test_published_files_come_first(root):
    (root / "raw" / "qm9_v3.pt").write_bytes(b"not looked at")
    assert same(source.load(root, False), raw.read(root / "raw", False))


def test_energies_of_another_unit_are_refused(root, tmp_path):
    graphs = source.load(root, False)
    values = graphs.values.copy()
    values[:, 2:11] /= 27.2114
    move_to_pt(root, "raw/qm9_v3.pt", dict(zip(graphs.numbers.tolist(), values.tolist(), strict=True)))
    with pytest.raises(IsonomyError, match=r"qm9_v3.pt .* is damaged \(total energies without those of the single"):
        source.load(root, False)
    assert len(cached(tmp_path)) == 1


def test_the_order_is_our_own_unless_there_is_a_file(tmp_path):
    order, file = source.permutation(tmp_path, 100)
    assert file is None
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() != list(range(100))
    assert np.array_equal(order, source.permutation(tmp_path, 100)[0])


def test_the_order_of_a_file(tmp_path):
    wanted = [2, 0, 3, 1]
    np.save(tmp_path / "split.npy", np.array(wanted))
    order, file = source.permutation(tmp_path, 4)
    assert (order.tolist(), file) == (wanted, "split.npy")
    torch.save(torch.tensor(wanted), tmp_path / "random_split.t")
    with pytest.raises(IsonomyError, match=r"has split.npy and random_split.t, which may differ: keep one"):
        source.permutation(tmp_path, 4)
    (tmp_path / "split.npy").unlink()
    order, file = source.permutation(tmp_path, 4)
    assert (order.tolist(), file) == (wanted, "random_split.t")


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 1, 2, 2], [1, 2, 3, 4], [0.0, 1.0, 2.0, 3.0], [[0, 1], [2, 3]]])
@pytest.mark.parametrize("name", source.SPLITS)
def test_a_file_that_is_no_order_is_refused(tmp_path, order, name):
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, np.array(order))
    else:
        torch.save(torch.tensor(order), path)
    with pytest.raises(IsonomyError, match=rf"{name} .* is damaged .it is not an order of the 4 molecules"):
        source.permutation(tmp_path, 4)
    path.write_bytes(b"<html>")
    with pytest.raises(IsonomyError, match=rf"{name} .* is damaged"):
        source.permutation(tmp_path, 4)
