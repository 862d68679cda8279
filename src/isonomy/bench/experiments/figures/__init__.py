"""The papers' figures, drawn from an experiment's runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isonomy.bench import data
from isonomy.bench.experiments import measured
from isonomy.bench.experiments.figures import bars, curves, geometry, pictures, radar, sheet
from isonomy.bench.experiments.schema import Experiment
from isonomy.bench.sweep import Load
from isonomy.errors import unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "figures"
# By the name in an experiment's file. Each draws what has been measured so far, or nothing where that is nothing.
DRAWN: dict[str, Callable[..., Figure | None]] = {
    "deltas": bars.deltas,
    "task_deltas": bars.task_deltas,
    "seconds": bars.seconds,
    "curves": curves.curves,
    "radar": radar.radar,
    "pictures": pictures.predictions,
    "noise": pictures.noise,
    "geometry": geometry.geometry,
}


def draw(experiment: Experiment, out: Path, load: Load = data.load) -> list[Path]:
    """Draws an experiment's figure as far as its runs have come.

    Args:
        experiment: Which one; one without a figure has nothing drawn.
        out: Its folder, with one for every panel; the figure goes to its folder ``figures``.
        load: Finds data sets.

    Returns:
        The files: an SVG and a PNG; none where nothing has been measured yet.

    Raises:
        IsonomyError: There is no such figure.
    """
    options: dict[str, Any] = dict(experiment.figure or {})
    if not options:
        return []
    name = options.pop("draw")
    if name not in DRAWN:
        raise unknown(f"figure of experiment {experiment.name}", name, DRAWN)
    with sheet.style():
        figure = DRAWN[name](measured.collect(experiment, out, load), **options)
        if figure is None:
            return []
        stem = experiment.name.replace("/", "-").replace("@", "-")
        return sheet.save(figure, out / FOLDER, stem)
