"""QM9 as PyTorch Geometric keeps it: tensors of all molecules, with everything converted already."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isonomy.bench.data.qm9.graphs import BOND_TYPES, ELEMENTS, FEATURES, VALUES, Graphs
from isonomy.bench.data.roots import damaged

_KEYS = ("x", "pos", "edge_index", "edge_attr", "y", "idx")


class _Tensors(NamedTuple):
    """All molecules' atoms, edges and values one after another, and how many atoms and edges each molecule has."""

    x: Tensor
    pos: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    y: Tensor
    idx: Tensor
    atoms: Tensor
    edges: Tensor


def read(path: Path) -> Graphs:
    """The molecules of a file.

    Args:
        path: ``qm9_v3.pt``, a list of dictionaries, or ``data_v3.pt``, one dictionary and where each molecule begins.

    Raises:
        IsonomyError: It is damaged, or of a version that cannot be opened without running code from it.
    """
    loaded = _loaded(path)
    try:
        tensors = _listed(loaded) if isinstance(loaded, list) else _sliced(*loaded[:2])
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise damaged(path, 0, f"it does not hold molecules of {', '.join(_KEYS)}: {error}") from None
    return _checked(path, tensors)


def _loaded(path: Path) -> Any:
    # The file names PyTorch Geometric's class without an object of it, so anything of that name will do.
    named = type("Data", (), {"__module__": "torch_geometric.data.data"})
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:  # torch.load does not compare the checksums
                    raise ValueError("a checksum is wrong")
        with torch.serialization.safe_globals([named]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        reason = "it holds more than tensors, as older PyTorch Geometric wrote it, and opening that could run any code"
        raise damaged(path, 0, reason) from None
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise damaged(path, 0, error) from None


def _listed(molecules: list[dict[str, Any]]) -> _Tensors:
    columns = {name: [molecule[name] for molecule in molecules] for name in _KEYS}
    return _Tensors(
        x=torch.cat(columns["x"]),
        pos=torch.cat(columns["pos"]),
        edge_index=torch.cat(columns["edge_index"], dim=1),
        edge_attr=torch.cat(columns["edge_attr"]),
        y=torch.cat(columns["y"]),
        idx=torch.tensor([int(number) for number in columns["idx"]]),
        atoms=torch.tensor([len(x) for x in columns["x"]]),
        edges=torch.tensor([len(edges) for edges in columns["edge_attr"]]),
    )


def _sliced(data: dict[str, Tensor], slices: dict[str, Tensor]) -> _Tensors:
    return _Tensors(**{name: data[name] for name in _KEYS}, atoms=slices["x"].diff(), edges=slices["edge_attr"].diff())


def _checked(path: Path, tensors: _Tensors) -> Graphs:
    """The same as arrays, with every bond once."""
    x, pos, (one, other), kinds, y, idx, atoms, edges = (tensor.numpy() for tensor in tensors)
    count, total = len(atoms), int(atoms.sum())
    shapes = {
        "x": (x.shape, (total, FEATURES)),
        "pos": (pos.shape, (total, 3)),
        "edge_index": (one.shape, (int(edges.sum()),)),
        "edge_attr": (kinds.shape, (len(one), BOND_TYPES)),
        "y": (y.shape, (count, VALUES)),
        "idx": (idx.shape, (count,)),
    }
    for name, (found, wanted) in shapes.items():
        if found != wanted:
            raise damaged(path, 0, f"{name} has the shape {found}, not {wanted}")
    of_atom, of_edge = np.repeat(np.arange(count), atoms), np.repeat(np.arange(count), edges)
    size = atoms[of_edge]
    _require(path, np.isfinite(y).all(1), None, "a property is not finite")
    _require(path, np.isfinite(pos).all(1), of_atom, "a position is not finite")
    _require(path, (x >= 0).all(1) & (x == x.round()).all(1) & (x < 30).all(1), of_atom, "a feature is no small number")
    _require(path, np.isin(x[:, 5], ELEMENTS), of_atom, "an atom is none of H, C, N, O, F")
    _require(path, (one >= 0) & (other >= 0) & (one < size) & (other < size) & (one != other), of_edge, "not a bond")
    _require(path, (np.sort(kinds, axis=1) == [0, 0, 0, 1]).all(1), of_edge, "a bond has not one type")
    once = one < other
    links, back = (np.bincount(of_edge[chosen], minlength=count) for chosen in (once, ~once))
    _require(path, links == back, None, "a bond is not there in both directions")
    bonds = np.stack([one, other, kinds.argmax(1)], axis=1)[once]
    return Graphs(
        idx.astype(np.int64) + 1,
        atoms.astype(np.int64),
        links.astype(np.int64),
        x.astype(np.uint8),
        pos.astype(np.float32),
        bonds.astype(np.uint8),
        y.astype(np.float64),
    )


def _require(path: Path, fits: NDArray[np.bool_], molecule: NDArray[np.int64] | None, reason: str) -> None:
    """Refuses the file unless all fit; ``molecule`` says whose each one is."""
    if not fits.all():
        first = int(np.argmin(fits))
        raise damaged(path, first if molecule is None else int(molecule[first]), reason)
