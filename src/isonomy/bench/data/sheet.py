"""A sheet of pictures: samples of a data set, each with its labels in a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from isonomy.bench.data.check import spread
from isonomy.bench.data.dense import DenseTask
from isonomy.errors import IsonomyError

# Samples on a sheet, width of a picture, and height of what is written above it, in pixels.
ROWS, WIDTH, CAPTION = 6, 256, 14
Picture = NDArray[np.uint8]


def require(path: Path) -> Path:
    """The path, if a sheet can be written there.

    Args:
        path: Any.

    Raises:
        IsonomyError: It does not end in ``.png``, or is a folder.
    """
    if path.suffix.lower() != ".png" or path.is_dir():
        raise IsonomyError(f"--picture {path} is not possible: name a file that ends in .png.")
    return path


def save(problem: Any, path: Path) -> bool:
    """Writes the sheet.

    Args:
        problem: A data set with ``samples`` and ``example(split, index)``.
        path: As ``require`` returns it.

    Returns:
        Whether there was anything to be seen.
    """
    rows = [list(row) for row in _rows(problem)]
    if not rows:
        return False
    height = max(tile.height for row in rows for _, tile in row)
    sheet = Image.new("RGB", (WIDTH * max(map(len, rows)), (height + CAPTION) * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        for j, (caption, tile) in enumerate(row):
            corner = (WIDTH * j, (height + CAPTION) * i)
            pen.text(corner, caption, fill="black")
            sheet.paste(tile, (corner[0], corner[1] + CAPTION))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return True


def _rows(problem: Any) -> Iterator[Iterator[tuple[str, Image.Image]]]:
    """Samples from all splits; those that cannot be read are told of elsewhere."""
    splits = {split: names for split, names in problem.samples.items() if len(names)}
    for split, names in splits.items():
        for index in spread(len(names), max(ROWS // len(splits), 1)):
            try:
                sample = problem.example(split, index)
            except IsonomyError:
                continue
            if "image" in sample:
                yield _row(problem, f"{split} {names[index]}", sample)


def _row(problem: Any, name: str, sample: Mapping[str, Any]) -> Iterator[tuple[str, Image.Image]]:
    """The image, under its name and the labels that are numbers, and the labels that are maps."""
    numbers = [f"{field} {float(value):g}" for field, value in sample.items() if torch.as_tensor(value).numel() == 1]
    image = (255 * torch.as_tensor(sample["image"]).clamp(0, 1) + 0.5).byte().permute(1, 2, 0).numpy()
    yield " ".join([name, *numbers]), _tile(image)
    for task in problem.tasks:
        if isinstance(task, DenseTask) and task.name in sample:
            yield task.name, _tile(task.paint(sample[task.name]))


def _tile(picture: Picture) -> Image.Image:
    height, width = picture.shape[:2]
    return Image.fromarray(picture).resize((WIDTH, max(round(height * WIDTH / width), 1)), Image.Resampling.NEAREST)
