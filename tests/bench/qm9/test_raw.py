import math

import numpy as np
import pytest

from isonomy import IsonomyError
from isonomy.bench.data.qm9 import raw
from tests.bench.qm9 import by_hand

# What PyTorch Geometric has for its first molecule, methane, as it prints it.
METHANE = [
    *(0.0, 1.3210e01, -1.0550e01, 3.1865e00, 1.3736e01, 3.5364e01, 1.2177e00),
    *(-1.1015e03, -1.1014e03, -1.1014e03, -1.1020e03, 6.4690e00),
    *(-1.7172e01, -1.7287e01, -1.7390e01, -1.6152e01, 1.5771e02, 1.5771e02, 1.5771e02),
]
H = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def read(root, perceive=False):
    return raw.read(root / "raw", perceive)


def molecule(graphs, row):
    """Features, positions and bonds of one."""
    atoms = slice(graphs.atoms[:row].sum(), graphs.atoms[: row + 1].sum())
    links = slice(graphs.links[:row].sum(), graphs.links[: row + 1].sum())
    return graphs.features[atoms], graphs.positions[atoms], graphs.bonds[links]


def test_molecules_to_be_left_out_are_counted_but_not_there(root):
    graphs = read(root)
    assert graphs.numbers.tolist() == [1, 3, 4, 5]
    assert graphs.atoms.tolist() == [5, 3, 9, 12]
    assert graphs.links.tolist() == [4, 2, 8, 12]


def test_values_have_the_order_and_units_of_pytorch_geometric(root):
    values = read(root).values
    assert values.shape == (4, 19)
    assert [float(f"{value:.4e}") for value in values[0]] == METHANE
    water = values[1]
    assert water[:2].tolist() == [1.8511, 6.31]
    assert water[2] == pytest.approx(-0.2928 * 27.211386246)
    assert water[12] == pytest.approx(-213.087624253 * 0.04336414)
    assert water[16:].tolist() == [799.58812, 437.90386, 282.94545]


def test_features_of_atoms(root):
    graphs = read(root)
    features, positions, bonds = molecule(graphs, 0)
    assert features.tolist() == [[0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 4], H, H, H, H]
    np.testing.assert_array_equal(positions[3], np.float32([-0.5408, 1.4475, -0.8766]))
    assert bonds.tolist() == [[0, 1, 0], [0, 2, 0], [0, 3, 0], [0, 4, 0]]

    features, _, bonds = molecule(graphs, 1)
    assert features.tolist() == [[0, 0, 0, 1, 0, 8, 0, 0, 0, 0, 2], H, H]
    assert sorted(sorted(bond[:2]) for bond in bonds.tolist()) == [[0, 1], [0, 2]]

    features, _, _ = molecule(graphs, 2)
    assert features[:, 10].tolist() == [3, 2, 1, 0, 0, 0, 0, 0, 0]
    assert features[:, 5].tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]

    features, positions, bonds = molecule(graphs, 3)
    assert features[:6].tolist() == [[0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 1]] * 6
    assert bonds[:, 2].tolist() == [1, 0, 1, 0, 1, 0] + [0] * 6
    assert math.dist(positions[0], positions[3]) == pytest.approx(2.78)


def test_rdkit_without_sanitising_says_the_same(root):
    """Which is how the files that papers use were made: nothing is aromatic, and no hybrid is known."""
    from rdkit import Chem

    graphs = read(root)
    rows = dict(zip(graphs.numbers.tolist(), range(4), strict=True))
    supplier = Chem.SDMolSupplier(str(root / "raw" / "gdb9.sdf"), removeHs=False, sanitize=False)
    for number, found in enumerate(supplier, start=1):
        if number in rows:
            features, positions, bonds = molecule(graphs, rows[number])
            assert [atom.GetAtomicNum() for atom in found.GetAtoms()] == features[:, 5].tolist()
            assert not any(atom.GetIsAromatic() for atom in found.GetAtoms())
            assert {str(atom.GetHybridization()) for atom in found.GetAtoms()} == {"UNSPECIFIED"}
            np.testing.assert_allclose(found.GetConformer().GetPositions(), positions, atol=1e-6)
            orders = [int(bond.GetBondTypeAsDouble()) - 1 for bond in found.GetBonds()]
            ends = [[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()] for bond in found.GetBonds()]
            assert [[*pair, order] for pair, order in zip(ends, orders, strict=True)] == bonds.tolist()


def test_rdkit_perceives_rings_and_hybrids(root):
    graphs = read(root, perceive=True)
    methane, ethanol, benzene = (molecule(graphs, row) for row in (0, 2, 3))
    assert methane[0][:, 6:10].tolist() == [[0, 0, 0, 1]] + [[0, 0, 0, 0]] * 4
    assert ethanol[0][:3, 6:10].tolist() == [[0, 0, 0, 1]] * 3
    assert benzene[0][:6, 6:10].tolist() == [[1, 0, 1, 0]] * 6
    assert benzene[2][:, 2].tolist() == [3] * 6 + [0] * 6
    plain = read(root)
    assert (np.delete(graphs.features, [6, 7, 8, 9], 1) == np.delete(plain.features, [6, 7, 8, 9], 1)).all()
    assert (graphs.bonds[:, :2] == plain.bonds[:, :2]).all()


def test_triple_bonds_are_sp(root):
    # H-C≡C-H for the methane's place.
    acetylene = "gdb_1\n\n\n  4  3  0     0  0  0  0  0  0999 V2000\n" + "".join(
        f"{x:10.4f}    0.0000    0.0000 {symbol}   0  0\n"
        for x, symbol in ((0, "C"), (1.2, "C"), (-1.1, "H"), (2.3, "H"))
    )
    acetylene += "  1  2  3  0\n  1  3  1  0\n  2  4  1  0\nM  END\n$$$$\n"
    (root / "raw" / "gdb9.sdf").write_text(by_hand.STRUCTURES.replace(by_hand.METHANE, acetylene))
    features, _, bonds = molecule(read(root, perceive=True), 0)
    assert features[:2, 6:].tolist() == [[0, 1, 0, 0, 1]] * 2
    assert bonds.tolist() == [[0, 1, 2], [0, 2, 0], [1, 3, 0]]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("gdb_3\n", "gdb_4\n", r"gdb9.sdf \(sample 2\) is damaged \(it has the name 'gdb_4', which is not that of"),
        ("  9  8  0 ", "  9  9  0 ", r"\(sample 3\) is damaged \(it is not a whole V2000 structure"),
        ("  9  8  0 ", "  x  8  0 ", r"\(sample 3\) is damaged"),
        ("0.0076 O ", "0.0076 S ", r"\(sample 2\) is damaged \(there is an atom 'S', where QM9 has H, C, N, O, F"),
        ("   -0.0344", "   nowhere", r"\(sample 2\) is damaged \(could not convert"),
        ("   -0.0344", "       nan", r"\(sample 2\) is damaged \(an atom's position is not finite"),
        ("  2  1  1  0", "  2  2  1  0", r"\(sample 2\) is damaged \('2  2  1  0  0  0  0' is not a bond"),
        ("  2  1  1  0", "  2  4  1  0", r"\(sample 2\) is damaged \('2  4  1  0  0  0  0' is not a bond"),
        ("  2  1  1  0", "  2  1  8  0", r"\(sample 2\) is damaged \('2  1  8  0  0  0  0' is not a bond"),
        (by_hand.BENZENE, "", r"\(sample 4\) is damaged \(it ends after 4 of 5 molecules"),
        (by_hand.BENZENE, by_hand.BENZENE[:-5], r"\(sample 4\) is damaged \(it ends after 4 of 5 molecules"),
        (by_hand.BENZENE, by_hand.BENZENE * 2, r"\(sample 5\) is damaged \(it has the name 'gdb_5', which"),
    ],
)
def test_damaged_structures_are_named(root, old, new, sentence):
    assert old in by_hand.STRUCTURES
    (root / "raw" / "gdb9.sdf").write_text(by_hand.STRUCTURES.replace(old, new, 1))
    with pytest.raises(IsonomyError, match=sentence):
        read(root)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("mol_id,A", "mol_id,a", r"gdb9.sdf.csv \(sample 0\) is damaged \(its first line is not mol_id,A,B,C,mu"),
        (",8.1,", ",", r"\(sample 3\) is damaged \('gdb_4,35.0,9.4,1.5.*' is not a name and 19 numbers"),
        (",8.1,", ",x,", r"\(sample 3\) is damaged \('gdb_4,35.0,9.4,x.*' is not a name and 19 numbers"),
        (",8.1,", ",inf,", r"\(sample 3\) is damaged \(a number is not finite"),
        (by_hand.TABLE, "", "its first line is not mol_id"),
        ("35.0,9.4", "", r"\(sample 3\) is damaged"),
    ],
)
def test_a_damaged_table_is_named(root, old, new, sentence):
    assert old in by_hand.TABLE
    (root / "raw" / "gdb9.sdf.csv").write_text(by_hand.TABLE.replace(old, new, 1))
    with pytest.raises(IsonomyError, match=sentence):
        read(root)


@pytest.mark.parametrize(
    "text",
    ["", "<html>\n" * 20, by_hand.LEFT_OUT.replace("  2  N", "  6  N"), by_hand.LEFT_OUT + "  3  O\n"],
    ids=["empty", "another file", "no such molecule", "a number after the end"],
)
def test_a_damaged_list_is_named(root, text):
    (root / "raw" / "uncharacterized.txt").write_text(text)
    with pytest.raises(IsonomyError, match=r"uncharacterized.txt \(sample 0\) is damaged \(it is not 9 lines of"):
        read(root)
