"""QM9 as it was published: structures in an SDF file, properties in a table, and a list of molecules to leave out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.data.qm9.graphs import BOND_TYPES, Graphs, described
from isonomy.bench.data.qm9.properties import COLUMNS, converted
from isonomy.bench.data.roots import damaged

FILES = ("gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt")
CHARGES = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
_END = "$$$$"
_TITLE, _COUNTS, _ATOMS = 0, 3, 4  # lines of a structure
_EXPLANATION = 9  # lines before the list of molecules that are left out

Lists = list[list[int]]


def read(folder: Path, perceive: bool) -> Graphs:
    """The molecules of a folder with ``FILES``, without those to be left out.

    Args:
        folder: Where they are.
        perceive: Whether RDKit says which atoms and bonds are aromatic, and which atoms are sp, sp2 or sp3; otherwise
            none is.

    Raises:
        IsonomyError: A file is damaged; it is named, with the molecule.
    """
    sdf, csv, text = (folder / name for name in FILES)
    names, table = _table(csv)
    left_out = _left_out(text, len(names))
    numbers: list[int] = []
    charges: list[list[int]] = []
    flags: list[Lists] = []
    positions: list[list[list[float]]] = []
    bonds: list[Lists] = []
    index = -1
    for index, lines in enumerate(_structures(sdf)):
        try:
            if index >= len(names) or lines[_TITLE].strip() != names[index]:
                raise ValueError(f"it has the name {lines[_TITLE].strip()!r}, which is not that of the table's row")
            if index + 1 in left_out:
                continue
            own_charges, own_positions, own_bonds = _parsed(lines)
            own_flags = [[0] * 4] * len(own_charges)
            if perceive:
                from isonomy.bench.data.qm9.perception import perceived  # noqa: PLC0415 - an extra

                own_flags, own_bonds = perceived(lines)
        except (ValueError, IndexError, KeyError) as error:
            raise damaged(sdf, index, error) from None
        numbers.append(index + 1)
        charges.append(own_charges)
        flags.append(own_flags)
        positions.append(own_positions)
        bonds.append(own_bonds)
    if index + 1 != len(names):
        raise damaged(sdf, index + 1, f"it ends after {index + 1} of {len(names)} molecules")
    atoms, links = np.array([*map(len, charges)]), np.array([*map(len, bonds)])
    every_position = _flat(positions, 3, np.float32)
    if len(bad := np.flatnonzero(~np.isfinite(every_position).all(1))):
        molecule = int(np.searchsorted(np.cumsum(atoms), bad[0], side="right"))
        raise damaged(sdf, numbers[molecule] - 1, "an atom's position is not finite")
    every_bond = _flat(bonds, 3, np.uint8)
    features = described(np.array([*chain(*charges)]), _flat(flags, 4, np.uint8), atoms, links, every_bond)
    values = converted(table[np.array(numbers, dtype=np.int64) - 1])
    return Graphs(np.array(numbers), atoms, links, features, every_position, every_bond, values)


def _flat(lists: list[list[list[float]]] | list[Lists], width: int, kind: type) -> NDArray[Any]:
    return np.array([*chain(*lists)], dtype=kind).reshape(-1, width)


def _structures(path: Path) -> Iterator[list[str]]:
    """The lines of each structure, without what ends it."""
    lines: list[str] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(_END):
                yield lines
                lines = []
            else:
                lines.append(line.rstrip("\n"))


def _parsed(lines: list[str]) -> tuple[list[int], list[list[float]], Lists]:
    """Atomic numbers, positions and bonds of a structure, whose numbers stand in columns of their own."""
    counts = lines[_COUNTS]
    atoms, links = int(counts[:3]), int(counts[3:6])
    end = lines[_ATOMS + atoms + links : _ATOMS + atoms + links + 1]
    if "V2000" not in counts or atoms < 1 or not end or not end[0].startswith("M  "):
        raise ValueError("it is not a whole V2000 structure")
    charges, positions, bonds = [], [], []
    for line in lines[_ATOMS : _ATOMS + atoms]:
        symbol = line[30:34].strip()
        if symbol not in CHARGES:
            raise ValueError(f"there is an atom {symbol!r}, where QM9 has {', '.join(CHARGES)}")
        charges.append(CHARGES[symbol])
        positions.append([float(line[start : start + 10]) for start in (0, 10, 20)])
    for line in lines[_ATOMS + atoms : _ATOMS + atoms + links]:
        one, other, kind = (int(line[start : start + 3]) - 1 for start in (0, 3, 6))
        if not (0 <= one < atoms and 0 <= other < atoms and one != other and 0 <= kind < BOND_TYPES):
            raise ValueError(f"{line.strip()!r} is not a bond")
        bonds.append([one, other, kind])
    return charges, positions, bonds


def _table(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """The molecules' names, and their properties (M, 19)."""
    header, *rows = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if header.split(",") != list(COLUMNS):
        raise damaged(path, 0, f"its first line is not {','.join(COLUMNS)}")
    names, table = [], np.empty((len(rows), len(COLUMNS) - 1))
    for index, row in enumerate(rows):
        name, *values = row.split(",")
        try:
            table[index] = np.array([float(value) for value in values]).reshape(table.shape[1])
        except ValueError:
            raise damaged(path, index, f"{row[:40]!r} is not a name and {table.shape[1]} numbers") from None
        names.append(name)
    if len(bad := np.flatnonzero(~np.isfinite(table).all(1))):
        raise damaged(path, int(bad[0]), "a number is not finite")
    return names, table


def _left_out(path: Path, count: int) -> set[int]:
    """The numbers, from 1, of molecules whose structure is not the one they were meant to have."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[_EXPLANATION:]
    firsts = [next(iter(line.split()), "") for line in lines]
    numbers = {int(first) for first in takewhile(str.isdecimal, firsts)}
    # What follows the list are a line or two without a number.
    if not numbers or not numbers <= set(range(1, count + 1)) or sum(map(str.isdecimal, firsts)) != len(numbers):
        raise damaged(path, 0, f"it is not {_EXPLANATION} lines of explanation and then numbers from 1 to {count}")
    return numbers
