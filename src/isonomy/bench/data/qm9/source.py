"""Where the molecules of QM9 come from: the files that a folder has, parsed once and kept in the cache."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from isonomy.bench.data.qm9 import collated, raw
from isonomy.bench.data.qm9.graphs import Graphs
from isonomy.bench.data.qm9.properties import fault
from isonomy.bench.data.rooms.cache import home
from isonomy.bench.data.roots import Layout, damaged
from isonomy.bench.records import replace, require_writable
from isonomy.bench.seeds import key
from isonomy.errors import IsonomyError

VERSION = 1  # of the cached arrays
SPLITS = ("split.npy", "random_split.t")
_PROCESSED = ("raw/qm9_v3.pt", "processed/data_v3.pt")
LAYOUT = Layout(
    "qm9",
    """qm9/
    raw/gdb9.sdf               133,885 structures,
    raw/gdb9.sdf.csv           their properties
    raw/uncharacterized.txt    and the 3,054 of them to be left out;
  or, as PyTorch Geometric has made them from these,
    raw/qm9_v3.pt
  or
    processed/data_v3.pt
  and, if the split is to be another one,
    split.npy                  130,831 numbers from 0 in any order, or random_split.t:
                               10,000 molecules for test, 10,000 for val, the others for train""",
    "QM9 is published with the article of Scientific Data 1, 140022; MoleculeNet has it as one archive.",
)


def load(root: Path, perceive: bool) -> Graphs:
    """The molecules of a folder.

    Args:
        root: The data set's.
        perceive: As of ``raw.read``.

    Raises:
        IsonomyError: A file is missing or damaged, or what was asked for is not in it.
    """
    files = _files(root)
    if perceive and len(files) == 1:
        raise IsonomyError(
            f"Option perceive of qm9 needs raw/gdb9.sdf, and {root} has {files[0].name}: leave the option out."
        )
    states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    identity = key("qm9", VERSION, str(perceive), *(part for state in states for part in state))
    path = home() / "qm9" / f"{identity:016x}.npz"
    if not path.exists():
        require_writable(path.parent, "ISONOMY_CACHE")
        graphs = raw.read(root / "raw", perceive) if len(files) > 1 else collated.read(files[0])
        if reason := fault(graphs):
            raise damaged(files[0], 0, reason)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, lambda file: np.savez(file, **graphs._asdict()))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Graphs(**arrays)
    except (zipfile.BadZipFile, ValueError, TypeError, OSError, EOFError) as error:
        raise IsonomyError(f"{path} cannot be read ({error}): delete it, and it is made anew.") from None


def _files(root: Path) -> list[Path]:
    """Those that are read; the published ones before what was made of them."""
    published = [root / "raw" / name for name in raw.FILES]
    for processed in _PROCESSED:
        if not published[0].exists() and (root / processed).exists():
            return [root / processed]
    LAYOUT.require(*published)
    return published


def permutation(root: Path, count: int) -> tuple[NDArray[np.int64], str | None]:
    """The order of the molecules from which splits are cut, and the name of the file that has it, if there is one.

    Args:
        root: The data set's folder.
        count: How many molecules there are.

    Raises:
        IsonomyError: The file is no permutation of them, or there are two.
    """
    own = [root / name for name in SPLITS if (root / name).exists()]
    if not own:
        return np.random.default_rng(key("qm9", "split")).permutation(count), None
    if len(own) > 1:
        raise IsonomyError(f"{root} has {' and '.join(SPLITS)}, which may differ: keep one of them.")
    try:
        if own[0].suffix == ".npy":
            order = np.load(own[0], allow_pickle=False)
        else:
            order = torch.load(own[0], map_location="cpu", weights_only=True).numpy()
    except Exception as error:  # whatever is in it, it is not an order
        raise damaged(own[0], 0, error) from None
    if order.dtype.kind not in "iu" or order.shape != (count,) or not np.array_equal(np.sort(order), np.arange(count)):
        raise damaged(own[0], 0, f"it is not an order of the {count} molecules, counted from 0")
    return order.astype(np.int64), own[0].name
