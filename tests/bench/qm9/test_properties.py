import numpy as np
import pytest

from isonomy.bench.data.molecules.chemistry import TARGETS
from isonomy.bench.data.qm9 import raw
from isonomy.bench.data.qm9.properties import UNITS, fault, targets


@pytest.fixture
def graphs(root):
    return raw.read(root / "raw", False)


def test_tasks_are_those_of_the_papers_in_their_order_and_units(graphs):
    # Columns of PyTorch Geometric, and how often its unit goes into the printed one.
    columns = dict(zip(TARGETS, (0, 1, 2, 3, 5, 6, 12, 13, 14, 15, 11), strict=True))
    found = targets(graphs.values)
    assert found.shape == (4, 11)
    for position, (name, column) in enumerate(columns.items()):
        factor = 1000 if UNITS[position] == "meV" else 1
        np.testing.assert_allclose(found[:, position], factor * graphs.values[:, column], err_msg=name)
    assert dict(zip(TARGETS, UNITS, strict=True)) == {
        **{"mu": "D", "alpha": "a0³", "r2": "a0²", "cv": "cal/(mol K)"},
        **dict.fromkeys(("homo", "lumo", "zpve", "u0", "u", "h", "g"), "meV"),
    }


def test_methane_in_printed_units(graphs):
    methane = dict(zip(TARGETS, targets(graphs.values)[0].tolist(), strict=True))
    assert methane["homo"] == pytest.approx(-0.3877 * 27211.386246)
    assert methane["u0"] == pytest.approx(-395.999594594 * 43.36414)
    assert methane["r2"] == 35.3641


@pytest.mark.parametrize("columns", [slice(7, 11), slice(12, 16)], ids=["total", "atomisation"])
def test_energies_in_another_unit_are_seen(graphs, columns):
    assert fault(graphs) is None
    values = graphs.values.copy()
    values[:, columns] /= 27.2114
    assert "eV away from the atomisation energies" in fault(graphs._replace(values=values))


def test_total_energies_for_atomisation_energies_are_seen(graphs):
    values = graphs.values.copy()
    values[:, 12:16] = values[:, 7:11]
    assert fault(graphs._replace(values=values)) is not None


def test_one_odd_molecule_does_not_condemn_the_file(graphs):
    values = graphs.values.copy()
    values[3, 7] += 5
    assert fault(graphs._replace(values=values)) is None
