"""What a sweep leaves on disk: atomic writes, and reading that says what is wrong.

A cell's folder holds ``config.json``, ``metrics.jsonl`` (a line an epoch; the last one has the test metrics) and
``checkpoint.pt``. The metrics are written before the checkpoint of the same epoch, so after a kill the checkpoint says
where to go on and surplus lines are dropped.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from isonomy.bench import parts
from isonomy.errors import IsonomyError

CONFIG, METRICS, CHECKPOINT, ERROR = "config.json", "metrics.jsonl", "checkpoint.pt", "error.txt"
BEST = "best.pt"
CHECKPOINT_KEYS = {"epoch", "model", "optimizers", "balancer", "procedure", "precision"}

Json = dict[str, Any]


def replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file beside its place and moves it there, so that a reader sees the old one or the new one, whole.

    Of several processes that train one network, which all have the same to say, the first one does.
    """
    if parts.rank():
        return
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's files are for their owner alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically.

    Args:
        path: Where.
        content: What.
    """
    replace(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically.

    Args:
        path: Where.
        text: What, with newlines as they are.
    """
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically.

    Args:
        path: Where.
        value: What; floats keep every bit.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_lines(path: Path, lines: Sequence[Json]) -> None:
    """Writes a JSON-lines file atomically.

    Args:
        path: Where.
        lines: One mapping a line.
    """
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file atomically.

    Args:
        path: Where.
        columns: The header.
        rows: Floats are written so that they read back exactly.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def save_checkpoint(path: Path, state: Json) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: Where.
        state: ``epoch``, ``model``, ``optimizers``, ``balancer``, ``procedure`` and ``precision``.
    """
    replace(path, lambda file: torch.save(state, file))


def save_model(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes the best model so far atomically.

    Args:
        folder: The cell's.
        state: Of the network.
    """
    replace(folder / BEST, lambda file: torch.save(dict(state), file))


def load_model(folder: Path, device: Any = "cpu") -> Json:
    """The model that counts: the best one, where one was kept, else the last one.

    Args:
        folder: Of a cell that has checkpoints.
        device: Where its tensors go.

    Raises:
        IsonomyError: The file is damaged.
    """
    if not (folder / BEST).exists():
        state = load_checkpoint(folder, device)
        assert state is not None
        return dict(state["model"])
    try:
        return dict(torch.load(folder / BEST, map_location=device, weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, OSError, KeyError):
        raise damaged(folder / BEST, "not a model", _again(folder / BEST)) from None


def damaged(path: Path, reason: str, remedy: str) -> IsonomyError:
    """The error for a file that cannot be what a sweep has written.

    Args:
        path: The file.
        reason: What is wrong with it.
        remedy: The way out, an imperative sentence without its full stop.
    """
    return IsonomyError(f"{path} is damaged ({reason}): {remedy}.")


def _again(path: Path) -> str:
    return f"delete the folder {path.parent} to train this cell again"


def read_json(path: Path, remedy: str | None = None) -> Json:
    """Reads a JSON file that holds one mapping.

    Args:
        path: The file.
        remedy: The way out when it is damaged; by default to delete the cell's folder.

    Raises:
        IsonomyError: It is not that.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        raise damaged(path, "not JSON", remedy or _again(path)) from None
    if not isinstance(value, dict):
        raise damaged(path, "not a JSON object", remedy or _again(path))
    return value


def read_metrics(folder: Path) -> list[Json]:
    """The epochs that a cell has recorded, none when it has not begun.

    Args:
        folder: The cell's.

    Raises:
        IsonomyError: A line is not the record of its epoch.
    """
    path = folder / METRICS
    if not path.exists():
        return []
    lines: list[Json] = []
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (ValueError, OSError):
        raise damaged(path, "not text", _again(path)) from None
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or line.get("epoch") != number or "train_losses" not in line:
            raise damaged(path, f"line {number} is not the record of epoch {number}", _again(path))
        lines.append(line)
    return lines


def load_checkpoint(folder: Path, device: Any = "cpu") -> Json | None:
    """A cell's last checkpoint, None when it has none.

    Args:
        folder: The cell's.
        device: Where its tensors go.

    Raises:
        IsonomyError: The file is damaged, or the metrics are short of the epoch it was written at.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None  # torch.load does not compare the checksums
        state = torch.load(path, map_location=device, weights_only=True) if whole else None
    except (zipfile.BadZipFile, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, OSError, KeyError):
        raise damaged(path, "not a checkpoint", _again(path)) from None
    if not isinstance(state, dict) or set(state) != CHECKPOINT_KEYS:
        raise damaged(path, f"it does not hold {', '.join(sorted(CHECKPOINT_KEYS))}", _again(path))
    recorded = len(read_metrics(folder))
    if recorded < state["epoch"]:
        raise damaged(folder / METRICS, f"{recorded} epochs, the checkpoint has {state['epoch']}", _again(path))
    return state


def test_metrics(folder: Path) -> dict[str, dict[str, float]] | None:
    """A finished cell's test metrics, a mapping of task to metric to value; None when it is not finished.

    Args:
        folder: The cell's.
    """
    lines = read_metrics(folder)
    if not lines or "test" not in lines[-1] or not (folder / CHECKPOINT).exists():
        return None
    result: dict[str, dict[str, float]] = lines[-1].get("selected", lines[-1])["test"]
    return result


def require_writable(out: Path, flag: str = "--out") -> None:
    """Refuses a folder that cannot be made or written, before anything is written.

    Args:
        out: A folder that is to be written in.
        flag: What named it.

    Raises:
        IsonomyError: It cannot be used.
    """
    try:
        existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists() or folder.is_symlink())
    except OSError as error:
        raise IsonomyError(f"{flag} {out} cannot be used ({error.strerror}): name another folder.") from None
    if not existing.is_dir():
        raise IsonomyError(f"{flag} {out} cannot be used: {existing} is not a folder; name another one.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise IsonomyError(f"{flag} {out} cannot be written: {existing} is not yours to write; choose another folder.")
