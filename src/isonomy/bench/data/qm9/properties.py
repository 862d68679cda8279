"""The properties of QM9: their columns, units, and which of them are the eleven tasks.

Ramakrishnan et al., "Quantum chemistry structures and properties of 134 kilo molecules", Scientific Data 1, 2014. The
table has energies in Hartree, and atomisation energies in kcal/mol; the order and the units of the nineteen values here
are those of the files that PyTorch Geometric makes of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.data.qm9.graphs import Graphs

HARTREE = 27.211386246  # eV
KCAL = 0.04336414  # kcal/mol in eV
ROTATIONAL = ("A", "B", "C")
NAMES = (
    *("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u298", "h298", "g298", "cv"),
    *("u0_atom", "u298_atom", "h298_atom", "g298_atom"),
)
COLUMNS = ("mol_id", *ROTATIONAL, *NAMES)  # of the table
_IN_HARTREE = {"homo", "lumo", "gap", "zpve", "u0", "u298", "h298", "g298"}
_CONVERSION = np.array(
    [KCAL if name.endswith("_atom") else HARTREE if name in _IN_HARTREE else 1.0 for name in (*NAMES, *ROTATIONAL)]
)

# The tasks: the gap follows from two others, and of the total energies almost all is that of the single atoms.
_TASKS = (
    *("mu", "alpha", "homo", "lumo", "r2", "zpve"),
    *("u0_atom", "u298_atom", "h298_atom", "g298_atom", "cv"),
)
_CHOSEN = [NAMES.index(name) for name in _TASKS]
UNITS = ("D", "a0³", "meV", "meV", "a0²", "meV", "meV", "meV", "meV", "meV", "cal/(mol K)")
_IN_UNITS = np.array([1000.0 if unit == "meV" else 1.0 for unit in UNITS])

# Energies of the single atoms at 0 K, eV, by atomic number.
ATOMS = {1: -13.61312, 6: -1029.86312, 7: -1485.30251, 8: -2042.61124, 9: -2713.48486}
_NEAR = 1.0  # eV; another unit or another kind of energy is hundreds of them off


def converted(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nineteen values of rows of the table: rotational constants last, energies in eV.

    Args:
        table: Its columns without the first, (M, 19).
    """
    values: NDArray[np.float64] = np.concatenate([table[:, 3:], table[:, :3]], axis=1) * _CONVERSION
    return values


def targets(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The eleven properties of ``molecules.chemistry.TARGETS`` in the units of ``UNITS``, (M, 11).

    The four energies are atomisation energies.

    Args:
        values: Nineteen, (M, 19).
    """
    chosen: NDArray[np.float64] = values[:, _CHOSEN] * _IN_UNITS
    return chosen


def fault(graphs: Graphs) -> str | None:
    """What is wrong with the energies, if the total ones do not differ from atomisation by those of the single atoms.

    Files that older programs made have energies in Hartree, or total ones for atomisation energies.

    Args:
        graphs: The molecules.
    """
    single = np.array([ATOMS[number] for number in graphs.features[:, 5].tolist()])
    sums = np.add.reduceat(single, np.cumsum(graphs.atoms) - graphs.atoms)
    total, atomisation = (graphs.values[:, NAMES.index(name)] for name in ("u0", "u0_atom"))
    off = float(np.median(np.abs(total - sums - atomisation)))
    if off < _NEAR:
        return None
    return f"total energies without those of the single atoms are {off:.4g} eV away from the atomisation energies"
