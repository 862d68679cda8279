import pytest

from isonomy.bench.data import stand_ins
from isonomy.bench.data.molecules import structures
from isonomy.bench.data.molecules.chemistry import properties
from isonomy.bench.data.qm9 import source
from isonomy.bench.data.qm9.properties import UNITS, targets


def test_it_holds_the_embedded_molecules_in_the_published_formats(tmp_path, monkeypatch):
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path / "cache"))
    stand_ins.write("qm9", tmp_path / "qm9")
    graphs = source.load(tmp_path / "qm9", False)
    assert graphs.numbers.tolist() == [1, 3, 4, 5, 6, 7, 8, 9]
    molecules = structures.sample("train", 0, 9)
    kept = [0, *range(2, 9)]
    assert graphs.atoms.tolist() == (molecules.elements[kept] != structures.PADDING).sum(1).tolist()
    assert graphs.links.tolist() == ((molecules.orders[kept] > 0).sum((1, 2)) // 2).tolist()
    factors = [1000 if unit == "meV" else 1 for unit in UNITS]
    assert targets(graphs.values) == pytest.approx(properties(molecules)[kept] * factors)
