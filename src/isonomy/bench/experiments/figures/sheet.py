"""Figures of several panels in the house style, and their files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isonomy.bench import records
from isonomy.bench.report.picture import INK
from isonomy.diagnostics import style as house

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MINUS = "−"


@contextmanager
def style() -> Iterator[None]:
    """The house style, in an ink that is readable on white and on dark; for drawing inside the block."""
    import matplotlib as mpl  # noqa: PLC0415 - only those who draw wait for it

    ink: dict[Any, Any] = {name: INK for name, value in house.STYLE.items() if value == house.INK}
    with mpl.rc_context({**house.STYLE, **ink, "svg.fonttype": "path"}):
        yield


def grid(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, list[list[Axes]]]:
    """A figure of rows and columns of panels.

    Args:
        rows: How many.
        columns: How many.
        size: Width and height of a panel, in inches.
        options: Of matplotlib's ``subplots``.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [list(row) for row in np.asarray(axes)]


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend below all panels, of everything that any of them shows.

    Args:
        figure: Whose.
        axes: The panels.
    """
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if len(found) > 1:
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(len(found), 5))


def signed(value: float) -> str:
    """A number with one decimal and its sign.

    Args:
        value: The number.
    """
    return f"{value:+.1f}".replace("-", MINUS)


def save(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Writes a figure as SVG and as PNG, each atomically.

    Args:
        figure: Made inside ``style``, and still there.
        folder: Where to; made if need be.
        stem: Name of the files without their endings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ending, options in ((".svg", {"metadata": {"Date": None}}), (".png", {"dpi": 150})):
        buffer = io.BytesIO()
        # Tight, as titles of round panels stand above what the layout leaves room for.
        figure.savefig(buffer, format=ending[1:], bbox_inches="tight", **options)
        records.write_bytes(folder / f"{stem}{ending}", buffer.getvalue())
        paths.append(folder / f"{stem}{ending}")
    return paths
