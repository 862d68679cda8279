"""Which atoms and bonds are aromatic, and how atoms are hybridised, as RDKit sees it."""

from __future__ import annotations

from rdkit import Chem, RDLogger

_HYBRIDS = (Chem.HybridizationType.SP, Chem.HybridizationType.SP2, Chem.HybridizationType.SP3)
_BONDS = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC)
# Structures with a valence that RDKit does not know are read all the same, without a line on each.
RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]


def perceived(lines: list[str]) -> tuple[list[list[int]], list[list[int]]]:
    """Whether each atom is aromatic, sp, sp2 or sp3, (N, 4), and the bonds, (L, 3), in the file's order.

    Args:
        lines: Of a V2000 structure.

    Raises:
        ValueError: RDKit cannot read it.
    """
    molecule = Chem.MolFromMolBlock("\n".join(lines), sanitize=False, removeHs=False)
    if molecule is None:
        raise ValueError("RDKit cannot read it")
    # Of what RDKit calls sanitising only this is asked for: its check of valences refuses one structure in a hundred.
    molecule.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(molecule)
    Chem.SetAromaticity(molecule)
    Chem.SetConjugation(molecule)
    Chem.SetHybridization(molecule)
    flags = [
        [int(atom.GetIsAromatic()), *(int(atom.GetHybridization() == hybrid) for hybrid in _HYBRIDS)]
        for atom in molecule.GetAtoms()
    ]
    bonds = [
        [bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), _BONDS.index(bond.GetBondType())] for bond in molecule.GetBonds()
    ]
    return flags, bonds
