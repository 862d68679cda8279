"""Molecules of any size one after another in flat arrays, which 130,831 of them fit in, and batches of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isonomy.bench.backbones.mpnn import Molecules

ELEMENTS = (1, 6, 7, 8, 9)  # atomic numbers: H, C, N, O, F
FEATURES, BOND_TYPES, VALUES = 11, 4, 19


class Graphs(NamedTuple):
    """M molecules with A atoms and L bonds in all.

    Attributes:
        numbers: In the data set, from 1, (M,).
        atoms: How many atoms each has, (M,).
        links: How many bonds each has, (M,).
        features: What is known of each atom, (A, 11), small whole numbers: its element (5), its atomic number, whether
            it is aromatic, sp, sp2 or sp3, and how many hydrogens it carries.
        positions: Of the atoms, in Ångström, (A, 3).
        bonds: (L, 3): two atoms, counted from their molecule's first, and the type: single, double, triple, aromatic.
        values: Nineteen properties, (M, 19), as ``isonomy.bench.data.qm9.properties`` orders them.
    """

    numbers: NDArray[np.int64]
    atoms: NDArray[np.int64]
    links: NDArray[np.int64]
    features: NDArray[np.uint8]
    positions: NDArray[np.float32]
    bonds: NDArray[np.uint8]
    values: NDArray[np.float64]


def described(
    charges: NDArray[np.int64],
    flags: NDArray[np.uint8],
    atoms: NDArray[np.int64],
    links: NDArray[np.int64],
    bonds: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """The features of atoms.

    Args:
        charges: Their atomic numbers, (A,).
        flags: Whether they are aromatic, sp, sp2 or sp3, (A, 4).
        atoms: As of ``Graphs``.
        links: As of ``Graphs``.
        bonds: As of ``Graphs``.
    """
    hydrogen = charges == 1
    one, other = (bonds[:, :2] + np.repeat(np.cumsum(atoms) - atoms, links)[:, None]).T
    carried = np.bincount(one, hydrogen[other], len(charges)) + np.bincount(other, hydrogen[one], len(charges))
    kind = charges[:, None] == np.array(ELEMENTS)
    return np.concatenate([kind, charges[:, None], flags, carried[:, None]], axis=1).astype(np.uint8)


class Batches:
    """Molecules on a device, from where batches are taken.

    Args:
        graphs: The molecules.
        device: Where to have them.
    """

    def __init__(self, graphs: Graphs, device: torch.device) -> None:
        self.atoms, self.links = torch.from_numpy(graphs.atoms), torch.from_numpy(graphs.links)
        self.first_atom = self.atoms.cumsum(0) - self.atoms
        self.first_link = self.links.cumsum(0) - self.links
        self.features = torch.from_numpy(graphs.features).to(device)
        self.positions = torch.from_numpy(graphs.positions).to(device)
        self.bonds = torch.from_numpy(graphs.bonds).to(device)

    def at(self, chosen: Tensor) -> Molecules:
        """Some molecules, padded to the atoms of the largest.

        Args:
            chosen: Their positions, (B,), on the CPU.

        Returns:
            On the device. A pair's attributes are its bond's type, zeros where there is no bond, and its distance.
        """
        device = self.features.device
        mask, rows = _rows(self.first_atom[chosen], self.atoms[chosen])
        mask, rows = mask.to(device), rows.to(device)
        x = self.features[rows].float() * mask[..., None]
        positions = self.positions[rows]
        pairs = mask[:, :, None] & mask[:, None, :]
        distance = (positions[:, :, None] - positions[:, None, :]).norm(dim=-1) * pairs
        edges = torch.zeros(*pairs.shape, BOND_TYPES + 1, device=device)
        edges[..., BOND_TYPES] = distance

        there, rows = _rows(self.first_link[chosen], self.links[chosen])
        molecule = there.nonzero()[:, 0].to(device)
        one, other, kind = self.bonds[rows[there].to(device)].long().T
        edges[molecule, one, other, kind] = 1
        edges[molecule, other, one, kind] = 1
        return Molecules(x, edges, mask)


def _rows(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Of ragged lists in one array, which places of (B, longest) are taken, and the rows there; 0 elsewhere."""
    place = torch.arange(int(count.max()))
    there = place < count[:, None]
    return there, torch.where(there, first[:, None] + place, 0)
