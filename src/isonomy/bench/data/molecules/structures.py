"""Random molecules that obey valence: which atoms, which bonds, and where the atoms are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.seeds import key

VERSION = 1
ELEMENTS = ("H", "C", "N", "O", "F")
HEAVY, ATOMS = 9, 29  # at most: nine carbons in a chain carry twenty hydrogens
PADDING = -1

_SIZES = np.array([5, 6, 7, 8, 9])
_SIZE_SHARES = np.array([0.02, 0.05, 0.13, 0.30, 0.50])
_HEAVY_SHARES = np.array([0.72, 0.12, 0.145, 0.015])  # C, N, O, F
_VALENCE = np.array([1, 4, 3, 2, 1])
_RADIUS = np.array([0.31, 0.76, 0.71, 0.66, 0.57])
_RING_SHARE, _RING_DISTANCES = 0.7, (3, 5)
_RAISE_SHARE, _HIGHEST_ORDER = 0.3, 3
_SHORTER = 0.1  # of a bond's length, for every order above the first
_DIRECTIONS = 12
# A molecule's random numbers come in one block, so that it depends on its own index alone.
_BONDS = HEAVY  # the tree's eight and the ring's one
_DRAWS = {"size": 1, "element": HEAVY, "parent": HEAVY, "ring": 2, "order": _BONDS * (_HIGHEST_ORDER - 1)}

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Structures(NamedTuple):
    """Molecules, padded to ``ATOMS`` atoms, heavy atoms first.

    Attributes:
        elements: Positions in ``ELEMENTS``, shape (M, 29); ``PADDING`` behind the last atom.
        orders: Of the bonds, 0 where there is none, shape (M, 29, 29), symmetric.
        positions: In Ångström, shape (M, 29, 3); 0 behind the last atom.
    """

    elements: Integers
    orders: Integers
    positions: Floats


def sample(split: str, first: int, count: int) -> Structures:
    """Consecutive molecules of a split; each depends on its index alone.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        first: Index of the first.
        count: How many.
    """
    uniforms = np.empty((count, sum(_DRAWS.values())))
    directions = np.empty((count, ATOMS - 1, _DIRECTIONS, 3))
    for row in range(count):
        generator = np.random.default_rng(key("molecules", VERSION, split, first + row))
        generator.random(out=uniforms[row])
        generator.standard_normal(out=directions[row])
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    draws = np.split(uniforms, np.cumsum(list(_DRAWS.values()))[:-1], axis=1)
    return _placed(_bonded(**dict(zip(_DRAWS, draws, strict=True))), directions)


def _pick(possible: NDArray[np.bool_], uniform: Floats) -> Integers:
    """One of each row's possible columns, all equally likely, shape (M,); 0 in a row that has none."""
    wanted = np.floor(uniform * possible.sum(1)).astype(np.int64)
    chosen: Integers = np.argmax(possible & (np.cumsum(possible, 1) == wanted[:, None] + 1), axis=1)
    return chosen


class _Graphs(NamedTuple):
    """Molecules before they have a shape; ``parent`` (M, 29) is the earlier atom that an atom hangs on."""

    elements: Integers
    orders: Integers
    parent: Integers


def _bonded(size: Floats, element: Floats, parent: Floats, ring: Floats, order: Floats) -> _Graphs:
    """Molecules from uniform numbers: a tree of heavy atoms, perhaps a ring, raised bonds, hydrogens."""
    count = len(size)
    rows = np.arange(count)
    wanted = _SIZES[_drawn_from(_SIZE_SHARES, size[:, 0])]
    kinds = 1 + _drawn_from(_HEAVY_SHARES, element)
    kinds[:, 0] = ELEMENTS.index("C")

    elements = np.full((count, ATOMS), PADDING)
    elements[:, 0] = kinds[:, 0]
    parents = np.zeros((count, ATOMS), dtype=np.int64)
    orders = np.zeros((count, ATOMS, ATOMS), dtype=np.int64)
    apart = np.zeros((count, HEAVY, HEAVY), dtype=np.int64)
    free = np.zeros((count, HEAVY), dtype=np.int64)
    free[:, 0] = _VALENCE[kinds[:, 0]]
    heavy = np.ones(count, dtype=np.int64)
    bonds = []
    for atom in range(1, HEAVY):
        # A molecule that is saturated, as CF4 is, stays smaller than was wanted.
        grows = (atom < wanted) & (free > 0).any(1)
        on = _pick(free > 0, parent[:, atom])
        elements[grows, atom] = kinds[grows, atom]
        parents[grows, atom] = on[grows]
        heavy += grows
        free[rows[grows], on[grows]] -= 1
        free[grows, atom] = _VALENCE[kinds[grows, atom]] - 1
        apart[:, atom, :atom] = apart[:, :atom, atom] = apart[rows, on, :atom] + 1
        apart[~grows, atom, :] = apart[~grows, :, atom] = 0
        bonds.append((on, np.full(count, atom), grows))

    low, high = _RING_DISTANCES
    closable = (apart >= low) & (apart <= high) & (free[:, :, None] > 0) & (free[:, None, :] > 0)
    closable &= np.tri(HEAVY, k=-1, dtype=bool).T  # each pair once
    flat = closable.reshape(count, -1)
    first, second = np.divmod(_pick(flat, ring[:, 1]), HEAVY)
    closes = (ring[:, 0] < _RING_SHARE) & flat.any(1)
    free[rows[closes], first[closes]] -= 1
    free[rows[closes], second[closes]] -= 1
    bonds.append((first, second, closes))

    for bond, (one, other, there) in enumerate(bonds):
        orders[rows[there], one[there], other[there]] = 1
        raised = there
        for draw in order[:, 2 * bond : 2 * bond + 2].T:
            raised = raised & (draw < _RAISE_SHARE) & (free[rows, one] > 0) & (free[rows, other] > 0)
            orders[rows[raised], one[raised], other[raised]] += 1
            free[rows[raised], one[raised]] -= 1
            free[rows[raised], other[raised]] -= 1

    filled = np.cumsum(free, axis=1)
    for atom in range(1, ATOMS):
        number = atom - heavy  # of the hydrogen that this atom is, if it is one
        on = (filled <= number[:, None]).sum(1)
        there = (number >= 0) & (number < filled[:, -1])
        elements[there, atom] = ELEMENTS.index("H")
        parents[there, atom] = on[there]
        orders[rows[there], on[there], atom] = 1
    return _Graphs(elements, orders + orders.swapaxes(1, 2), parents)


def _drawn_from(shares: Floats, uniform: Floats) -> Integers:
    """Positions in ``shares`` with these probabilities, of the shape of ``uniform``."""
    return np.searchsorted(np.cumsum(shares)[:-1], uniform, side="right")


def _placed(graphs: _Graphs, directions: Floats) -> Structures:
    """Each atom at bond length from its parent, in that of twelve directions where the others are farthest."""
    elements, orders, parents = graphs
    count = len(elements)
    rows = np.arange(count)
    positions = np.zeros((count, ATOMS, 3))
    for atom in range(1, ATOMS):
        there = np.flatnonzero(elements[:, atom] != PADDING)
        if not len(there):
            break
        on = parents[there, atom]
        order = orders[there, on, atom]
        length = _RADIUS[elements[there, atom]] + _RADIUS[elements[there, on]]
        length *= 1 - _SHORTER * (order - 1)
        tried = positions[there, on][:, None] + length[:, None, None] * directions[there, atom - 1]
        gaps = np.linalg.norm(tried[:, :, None] - positions[there, None, :atom], axis=-1)
        gaps[rows[: len(there)], :, on] = np.inf
        best = np.argmax(gaps.min(2), axis=1)
        positions[there, atom] = tried[rows[: len(there)], best]
    return Structures(elements, orders, positions)
