"""Eleven properties of a molecule, in closed form: named after those of QM9, and on their scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.data.molecules.structures import ELEMENTS, HEAVY, PADDING, Floats, Structures

TARGETS = ("mu", "alpha", "homo", "lumo", "r2", "zpve", "u0", "u", "h", "g", "cv")

CHARGE = np.array([1, 6, 7, 8, 9])
_ELECTRONEGATIVITY = np.array([2.20, 2.55, 3.04, 3.44, 3.98])
_POLARISABILITY = np.array([2.0, 6.6, 5.4, 4.6, 3.4])
_HEAT = np.array([0.95, 2.35, 2.2, 2.15, 2.3])
# Energies of single bonds, eV.
_BOND = {
    "HH": 4.5, "HC": 4.3, "HN": 4.05, "HO": 4.8, "HF": 5.9,
    "CC": 3.6, "CN": 3.15, "CO": 3.7, "CF": 5.0,
    "NN": 1.7, "NO": 2.1, "NF": 2.9,
    "OO": 1.5, "OF": 2.0,
    "FF": 1.6,
}  # fmt: skip
_ENERGY = np.array([[_BOND.get(a + b, _BOND.get(b + a)) for b in ELEMENTS] for a in ELEMENTS], dtype=np.float64)
_KT = 0.025693  # at room temperature, eV
_CLASH = 2.6  # atoms without a bond repel each other when nearer, Å
_DEBYE = 4.803  # of an elementary charge times an Ångström
_SQUARED_BOHR = 3.571  # of a squared Ångström


def properties(structures: Structures) -> Floats:
    """The properties of molecules, shape (M, 11), in the order of ``TARGETS``.

    Dipole moment (Debye), polarisability (a0³), energies of the highest occupied and lowest empty orbital (eV), spatial
    extent (a0²), zero-point energy, inner energy at 0 K and at room temperature, enthalpy, free energy (eV), heat
    capacity (cal/(mol K)). Every formula is made up of bonds, types and distances alone, so they can be learnt exactly.

    Args:
        structures: The molecules.
    """
    elements, orders, positions = structures
    there = elements != PADDING
    charge = _of(CHARGE, elements)
    bonded = np.triu(orders) > 0
    extra = np.where(bonded, orders - 1, 0)
    distances = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
    hydrogen = elements == ELEMENTS.index("H")
    with_hydrogen = hydrogen[:, :, None] | hydrogen[:, None, :]
    rotatable = _total(bonded & (orders == 1) & ~with_hydrogen)

    strength = _ENERGY[elements[:, :, None], elements[:, None, :]] * (1 + 0.75 * extra)
    apart = np.triu(there[:, :, None] & there[:, None, :] & (orders == 0), k=1)
    clash = np.where(apart, np.maximum(_CLASH - distances, 0) ** 2, 0)
    u0 = 0.25 * _total(clash) - _total(np.where(bonded, strength, 0))
    cv = _of(_HEAT, elements).sum(1) + 0.55 * rotatable
    u = u0 + _KT * (1.5 + 0.18 * cv)
    h = u + _KT

    centre = (charge[:, :, None] * positions).sum(1) / charge.sum(1)[:, None]
    r2 = _SQUARED_BOHR * (charge * ((positions - centre[:, None]) ** 2).sum(2)).sum(1)
    g = h - _KT * (14 + 1.1 * np.log(r2) + 0.35 * rotatable)

    vibration = np.where(with_hydrogen, 0.30, 0.11 + 0.03 * extra) + 0.01 * np.sin(3 * distances)
    zpve = _total(np.where(bonded, vibration, 0))
    multiple = 1.2 * _total(bonded & (orders == 2)) + 2 * _total(bonded & (orders == 3))
    alpha = _of(_POLARISABILITY, elements).sum(1) + multiple + 0.02 * np.sqrt(r2)

    chi = _of(_ELECTRONEGATIVITY, elements)
    partial = 0.14 * (orders * (chi[:, :, None] - chi[:, None, :])).sum(2)
    mu = _DEBYE * np.linalg.norm((partial[:, :, None] * positions).sum(1), axis=1)
    homo, lumo = _orbitals(structures, distances)
    return np.stack([mu, alpha, homo, lumo, r2, zpve, u0, u, h, g, cv], axis=1)


def _of(table: NDArray[np.number], elements: NDArray[np.int64]) -> Floats:
    """Each atom's entry of a table by element, 0 for padding."""
    return np.where(elements == PADDING, 0.0, table[elements])


def _total(pairs: NDArray[np.number] | NDArray[np.bool_]) -> Floats:
    total: Floats = pairs.sum((1, 2), dtype=np.float64)
    return total


def _orbitals(structures: Structures, distances: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues of a Hückel matrix of the heavy atoms: the last of the lower half of them, and the next."""
    elements, orders = structures.elements, structures.orders
    rows = np.arange(len(elements))
    hydrogens = (orders * (elements == ELEMENTS.index("H"))[:, None, :]).sum(2)[:, :HEAVY]
    heavy = elements[:, :HEAVY] > ELEMENTS.index("H")
    order, distance = orders[:, :HEAVY, :HEAVY], distances[:, :HEAVY, :HEAVY]
    pairs = heavy[:, :, None] & heavy[:, None, :]
    matrix = np.where(pairs, -2.1 * np.sqrt(order) * np.exp(1.4 - distance), 0)
    # What is no heavy atom gets an eigenvalue above all others.
    energy = np.where(heavy, -2 * _of(_ELECTRONEGATIVITY, elements)[:, :HEAVY] - 0.6 * hydrogens, 1e3)
    matrix[:, range(HEAVY), range(HEAVY)] = energy
    values = np.linalg.eigvalsh(matrix)
    highest = (heavy.sum(1) + 1) // 2 - 1
    return values[rows, highest], values[rows, highest + 1]
