"""What networks see: pictures of predictions, kept beside a run's numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isonomy.bench import records

FOLDER = "pictures"


def save(folder: Path, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
    """Writes pictures as PNG files, each atomically.

    Args:
        folder: Of the run.
        pictures: By name, RGB, (H, W, 3).
    """
    if pictures:
        (folder / FOLDER).mkdir(exist_ok=True)
    for name, picture in pictures.items():
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
        records.write_bytes(folder / FOLDER / f"{name}.png", buffer.getvalue())


def load(folder: Path) -> dict[str, str]:
    """A run's pictures as ``data:`` addresses, by name; none if it has none.

    Args:
        folder: Of the run.
    """
    return {
        path.stem: f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        for path in sorted((folder / FOLDER).glob("*.png"))
    }
