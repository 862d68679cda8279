import pickle

import numpy as np
import pytest
import torch

from isonomy import IsonomyError
from isonomy.bench.data.qm9 import collated, raw
from tests.bench.qm9 import pyg


@pytest.fixture
def wanted(root):
    return raw.read(root / "raw", False)


@pytest.fixture
def molecules(wanted):
    return pyg.listed(dict(zip(wanted.numbers.tolist(), wanted.values.tolist(), strict=True)))


def undirected(graphs):
    """Bonds as a set: molecule, two atoms, type."""
    of = np.repeat(graphs.numbers, graphs.links).tolist()
    return {(m, min(i, j), max(i, j), k) for m, (i, j, k) in zip(of, graphs.bonds.tolist(), strict=True)}


def check(found, wanted):
    for name in ("numbers", "atoms", "links", "features", "positions"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
        assert getattr(found, name).dtype == getattr(wanted, name).dtype
    assert len(found.bonds) == len(wanted.bonds)
    assert undirected(found) == undirected(wanted)
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-6)


def test_a_list_of_dictionaries(molecules, wanted, tmp_path):
    torch.save(molecules, tmp_path / "qm9_v3.pt")
    check(collated.read(tmp_path / "qm9_v3.pt"), wanted)


def test_one_dictionary_and_slices(molecules, wanted, tmp_path):
    pyg.save_collated(tmp_path / "data_v3.pt", molecules)
    check(collated.read(tmp_path / "data_v3.pt"), wanted)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("code from a file was run",))


def test_a_file_that_could_run_code_is_refused_unopened(tmp_path):
    for name, save in (("new", torch.save), ("old", lambda it, path: path.write_bytes(pickle.dumps(it, protocol=2)))):
        path = tmp_path / name
        save((Harmful(), {}), path)
        with pytest.raises(IsonomyError, match=r"is damaged .it holds more than tensors.*could run any code"):
            collated.read(path)


def test_a_broken_file_is_named(molecules, tmp_path):
    path = tmp_path / "qm9_v3.pt"
    torch.save(molecules, path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(molecules[0]["pos"].numpy().tobytes())] ^= 1
    for content in (whole[:1000], bytes(flipped), b"", b"<html>"):
        path.write_bytes(content)
        with pytest.raises(IsonomyError, match=r"qm9_v3.pt \(sample 0\) is damaged"):
            collated.read(path)


def put(molecule, name, index, value):
    molecule[name] = molecule[name].clone()
    molecule[name][index] = value


@pytest.mark.parametrize(
    ("name", "index", "value", "sentence"),
    [
        ("y", (0, 3), torch.nan, "a property is not finite"),
        ("pos", (1, 1), torch.inf, "a position is not finite"),
        ("x", (1, 2), 0.5, "a feature is no small number"),
        ("x", (1, 10), -1, "a feature is no small number"),
        ("x", (1, 5), 16, "an atom is none of H, C, N, O, F"),
        ("edge_index", (1, 0), 9, "not a bond"),
        ("edge_index", (1, 0), 0, "not a bond"),
        ("edge_attr", (0, 1), 1, "a bond has not one type"),
        ("edge_attr", (0, 0), 0, "a bond has not one type"),
        ("edge_index", (slice(None), 0), torch.tensor([1, 0]), "a bond is not there in both directions"),
    ],
)
def test_a_damaged_molecule_is_named(molecules, tmp_path, name, index, value, sentence):
    put(molecules[2], name, index, value)
    torch.save(molecules, tmp_path / "qm9_v3.pt")
    with pytest.raises(IsonomyError, match=rf"qm9_v3.pt \(sample 2\) is damaged \({sentence}"):
        collated.read(tmp_path / "qm9_v3.pt")


@pytest.mark.parametrize("name", ["x", "pos", "edge_attr", "y"])
def test_tensors_of_another_width_are_refused(molecules, tmp_path, name):
    """As those are to which somebody has added the distance, say."""
    for molecule in molecules:
        molecule[name] = torch.cat([molecule[name], molecule[name][:, :1]], dim=1)
    torch.save(molecules, tmp_path / "qm9_v3.pt")
    with pytest.raises(IsonomyError, match=rf"is damaged \({name} has the shape"):
        collated.read(tmp_path / "qm9_v3.pt")


@pytest.mark.parametrize("content", [[{"x": torch.zeros(2, 11)}], {"x": 1}, torch.zeros(3), 5, []])
def test_other_contents_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "qm9_v3.pt")
    with pytest.raises(IsonomyError, match=r"is damaged .it does not hold molecules of x, pos, edge_index"):
        collated.read(tmp_path / "qm9_v3.pt")
