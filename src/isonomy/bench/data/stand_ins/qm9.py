"""A stand-in for ``qm9``: the molecules of ``molecules``, with their properties, in the published formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from isonomy.bench.data.molecules.chemistry import TARGETS, properties
from isonomy.bench.data.molecules.structures import ELEMENTS, PADDING, Structures, sample
from isonomy.bench.data.qm9.properties import ATOMS, COLUMNS, HARTREE, KCAL
from isonomy.bench.data.qm9.raw import CHARGES, FILES

# Where the table has another name than the embedded data; the atomisation energies are theirs.
_COLUMNS = {"u0": "u0_atom", "u": "u298_atom", "h": "h298_atom", "g": "g298_atom"}
_ALIKE = 3.0  # of the rotational constants, which nothing is trained on


def write(root: Path, size: tuple[int, int] | None, counts: Mapping[str, int]) -> None:
    """Writes ``qm9`` as it was published, with one molecule more, which the list says to leave out.

    Args:
        root: The data set's folder.
        size: Unused: molecules have none.
        counts: How many molecules, in all as many as these together: which split one is in is not written.
    """
    folder = root / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    molecules = sample("train", 0, sum(counts.values()) + 1)
    sdf, csv, text = (folder / name for name in FILES)
    blocks = (_structure(molecules, row) for row in range(len(molecules.elements)))
    sdf.write_text("".join(blocks))
    csv.write_text("".join(f"{','.join(row)}\n" for row in [COLUMNS, *_table(molecules)]))
    head = "".join(f"line {line} of an explanation\n" for line in range(1, 10))
    text.write_text(f"{head}         2  C  0.0  0.0\n\n")


def _structure(molecules: Structures, row: int) -> str:
    elements, orders, positions = (array[row] for array in molecules)
    atoms = int((elements != PADDING).sum())
    bonds = [(i, j) for i in range(atoms) for j in range(i + 1, atoms) if orders[i, j]]
    lines = [f"gdb_{row + 1}", " generated", "", f"{atoms:3}{len(bonds):3}  0     0  0  0  0  0  0999 V2000"]
    for element, (x, y, z) in zip(elements[:atoms].tolist(), positions[:atoms].tolist(), strict=True):
        lines.append(f"{x:10.4f}{y:10.4f}{z:10.4f} {ELEMENTS[element]:3} 0  0  0  0  0  0  0  0  0  0  0  0")
    lines += [f"{i + 1:3}{j + 1:3}{orders[i, j]:3}  0  0  0  0" for i, j in bonds]
    return "\n".join([*lines, "M  END", "$$$$", ""])


def _table(molecules: Structures) -> list[list[str]]:
    """Rows of the table, in its units."""
    columns = {_COLUMNS.get(name, name): values for name, values in zip(TARGETS, properties(molecules).T, strict=True)}
    single = np.array([ATOMS[CHARGES[symbol]] for symbol in ELEMENTS])
    there = molecules.elements != PADDING
    atoms = np.where(there, single[molecules.elements], 0).sum(1)
    columns |= dict.fromkeys("ABC", np.full(len(atoms), _ALIKE))
    columns["gap"] = columns["lumo"] - columns["homo"]
    for name in ("u0", "u298", "h298", "g298"):
        columns[name] = columns[f"{name}_atom"] + atoms
    for name in ("homo", "lumo", "gap", "zpve", "u0", "u298", "h298", "g298"):
        columns[name] = columns[name] / HARTREE
    for name in _COLUMNS.values():
        columns[name] = columns[name] / KCAL
    rows = zip(*(columns[name].tolist() for name in COLUMNS[1:]), strict=True)
    return [[f"gdb_{number}", *map(repr, row)] for number, row in enumerate(rows, start=1)]
