"""Pictures: what networks predict of test images, and labels with noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isonomy.bench.cell import folder
from isonomy.bench.experiments.figures import sheet
from isonomy.bench.experiments.measured import Measured
from isonomy.bench.pictures import FOLDER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Predictions are shown of one seed, as in a sweep's report.
SEED = 0
SAMPLES = 2
# Of the rooms whose labels get noise: their numbers, beyond those of training, and their size.
ROOMS, SIZE = (900_001, 900_002, 900_003), (192, 256)


def predictions(found: Measured) -> Figure | None:
    """For some test images a row of the labels and one of each method's predictions.

    Args:
        found: The experiment's sweeps.
    """
    rows: list[tuple[str, list[Path | None]]] = []
    columns = ["image"]
    for panel in found.experiment.panels:
        sweep = found.sweeps.get(panel.name)
        if sweep is None:
            continue
        columns = ["image", *sweep.plan.tasks]
        seen = {name: sweep.folder / folder(ours) / str(SEED) / FOLDER for name, ours in panel.methods.items()}
        seen = {name: path for name, path in seen.items() if (path / "0-image.png").exists()}
        for sample in range(SAMPLES) if seen else ():
            first = next(iter(seen.values()))
            truth = [first / f"{sample}-image.png", *(first / f"{sample}-{task}-truth.png" for task in columns[1:])]
            rows.append(("labels", [path if path.exists() else None for path in truth]))
            rows += [
                (name, [None, *(path / f"{sample}-{task}.png" for task in columns[1:])]) for name, path in seen.items()
            ]
    if not rows:
        return None
    figure, grid = sheet.grid(len(rows), len(columns), (1.9, 1.5))
    for row, (name, paths) in zip(grid, rows, strict=True):
        for ax, path in zip(row, paths, strict=True):
            _show(ax, None if path is None or not path.exists() else _read(path))
        row[0].set_ylabel(name)
    for ax, title in zip(grid[0], columns, strict=True):
        ax.set_title(title)
    return figure


def _read(path: Path) -> NDArray[np.uint8]:
    from PIL import Image  # noqa: PLC0415

    return np.asarray(Image.open(path).convert("RGB"))


def _show(ax: Axes, picture: NDArray[Any] | None) -> None:
    if picture is not None:
        ax.imshow(picture, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


def noise(found: Measured, clean: bool) -> Figure:
    """Generated rooms with wrong labels, each task's own.

    Args:
        found: An experiment without sweeps.
        clean: Whether the true labels are drawn beside the wrong ones.
    """
    tasks = ("seg", "depth", "normal")
    titles = [
        "image",
        *(f"{task}{end}" for task in tasks for end in (("", " with noise") if clean else (" with noise",))),
    ]
    figure, grid = sheet.grid(len(ROOMS), len(titles), (1.9, 1.5))
    for row, number in zip(grid, ROOMS, strict=True):
        for ax, picture in zip(row, _spoilt(number, clean), strict=True):
            _show(ax, picture)
    for ax, title in zip(grid[0], titles, strict=True):
        ax.set_title(title)
    return figure


def _spoilt(number: int, clean: bool) -> list[NDArray[np.uint8]]:
    """A room's image, and each task's labels: the true ones, if they are wanted, and the wrong ones."""
    import torch  # noqa: PLC0415 - and its user matplotlib's colours: seconds that only training has to spend

    from isonomy.bench.data import colours  # noqa: PLC0415
    from isonomy.bench.data.rooms.noise import noisy  # noqa: PLC0415
    from isonomy.bench.data.rooms.profiles import FARTHEST  # noqa: PLC0415
    from isonomy.bench.data.rooms.sample import generate  # noqa: PLC0415

    sample = generate(number, SIZE)
    found = [(255 * sample.image + 0.5).astype(np.uint8)]
    shown = [*([sample] if clean else []), noisy(sample, number, SEED)]
    found += [colours.classes(torch.from_numpy(each.label.astype(np.int64))) for each in shown]
    found += [colours.distance(torch.from_numpy(each.depth).permute(2, 0, 1), FARTHEST) for each in shown]
    found += [colours.normals(torch.from_numpy(each.normal).permute(2, 0, 1)) for each in shown]
    return found
