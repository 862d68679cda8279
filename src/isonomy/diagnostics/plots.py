"""Figures of balanced training, each a function that draws into ``ax``. Needs ``isonomy[plot]``.

The colours tell methods apart for colour-blind readers, on light and on dark paper; ``vector`` turns a figure into an
SVG that takes its ink from the page around it.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Mid-tones of the Okabe-Ito order: at least 3 : 1 against white and against a dark page.
PALETTE = ("#d55e00", "#0a8fd4", "#0f9d6d", "#b56bb0", "#b08200", "#6b7fe0", "#c0506a", "#5d9c2f")
DASHES = ("-", "--", "-.", ":")
NEUTRAL = "#85898f"
# Stands for the page's own text colour until ``vector`` replaces it; a colour that nobody would choose.
INK = "#010203"

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "isonomy",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK
    ),
}


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel in the house style, for drawing inside the block.

    Args:
        width: In inches.
        height: In inches.
    """
    import matplotlib as mpl  # noqa: PLC0415 - only those who draw wait for it
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def vector(figure: Figure, description: str) -> str:
    """A figure as an ``<svg>`` element for a page: text stays text and the ink is the page's text colour.

    Args:
        figure: Made by ``canvas``, still inside its block.
        description: What it shows, for those who do not see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "system-ui, sans-serif", text)
    text = re.sub(r' id="[A-Za-z]+[0-9.]*_\d+"', "", text)  # matplotlib's own names, the same in every figure of a page
    width = re.search(r'<svg[^>]*\bwidth="([\d.]+)pt"', text)
    opening = f'<svg role="img" aria-label="{html.escape(description, quote=True)}"'
    if width is not None:
        opening += f' style="max-width:{float(width[1]) * 4 / 3:.0f}px"'
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", opening, 1)


def looks(names: Sequence[str], neutral: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """A colour and a dash for every name, to be used in all figures.

    Args:
        names: Of methods.
        neutral: Those that are references and stay grey.
    """
    coloured = [name for name in names if name not in neutral]
    styles = {
        name: {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i // len(PALETTE) % len(DASHES)]}
        for i, name in enumerate(coloured)
    }
    return styles | {name: {"color": NEUTRAL, "linestyle": "-"} for name in neutral}


def delta_bars(
    deltas: Mapping[str, tuple[float, float | None]],
    *,
    ax: Axes,
    colors: Mapping[str, str] | None = None,
    ink: str = INK,
) -> None:
    """Horizontal bars of Δp with their deviations, the first on top.

    Args:
        deltas: For each method, the mean and the deviation in percent.
        ax: Where to draw.
        colors: For each method; grey by default.
        ink: Of whiskers, zero line and labels.
    """
    names = list(deltas)
    means = [deltas[name][0] for name in names]
    errors = [deltas[name][1] or 0.0 for name in names]
    shades = [(colors or {}).get(name, NEUTRAL) for name in names]
    ax.barh(names, means, color=shades, height=0.62)
    if any(errors):
        ax.errorbar(means, names, xerr=errors, fmt="none", ecolor=ink, elinewidth=1, capsize=3)
    ax.axvline(0, color=ink, linewidth=0.8)
    ax.invert_yaxis()
    ends = [(mean - error, mean + error) for mean, error in zip(means, errors, strict=True)]
    low, high = min(0.0, *(end[0] for end in ends)), max(0.0, *(end[1] for end in ends))
    room = 0.16 * (high - low or 1.0)
    for place, (mean, (left, right)) in enumerate(zip(means, ends, strict=True)):
        at, side = (left - 0.1 * room, "right") if mean < 0 else (right + 0.1 * room, "left")
        ax.text(at, place, f"{mean:+.1f}".replace("-", "−"), ha=side, va="center", fontsize=8, color=ink)
    ax.set_xlim(low - room * (low < 0), high + room * (high > 0 or low == high))
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0, labelsize=9)
    ax.set_xlabel("Δp, % against single-task training")


def curves(
    series: Mapping[str, Sequence[float]],
    *,
    ax: Axes,
    styles: Mapping[str, Mapping[str, str]] | None = None,
    log: bool = False,
    reference: tuple[str, float] | None = None,
) -> None:
    """Lines over epochs, one a method.

    Args:
        series: For each method, a value an epoch, from the first.
        ax: Where to draw.
        styles: For each method, its colour and dash, as ``looks`` gives them.
        log: Whether the values are on a logarithmic scale; those that are not positive are then left out.
        reference: A name and a value for a dotted horizontal line.
    """
    for name, values in series.items():
        style = dict((styles or {}).get(name, {}))
        shown = [value if value > 0 or not log else float("nan") for value in values]
        ax.plot(range(1, len(values) + 1), shown, label=name, marker="o" if len(values) < 15 else "", **style)  # type: ignore[arg-type]
    if reference is not None:
        ax.axhline(reference[1], color=INK, linestyle=":", linewidth=1.2, label=reference[0])
    if log:
        _log_scale(ax, [value for values in series.values() for value in values if value > 0])
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    ax.grid(axis="y", color=NEUTRAL, alpha=0.25, linewidth=0.6)
    ax.set_xlabel("epoch")


def _log_scale(ax: Axes, values: Sequence[float]) -> None:
    """A logarithmic y axis with plain numbers, and enough of them when the values span less than two decades."""
    from matplotlib.ticker import LogLocator, NullLocator  # noqa: PLC0415

    ax.set_yscale("log")
    narrow = bool(values) and max(values) < 100 * min(values)
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=9))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")


def paths(
    runs: Sequence[Sequence[tuple[float, float]]],
    *,
    ax: Axes,
    color: str = PALETTE[0],
    front: Sequence[tuple[float, float]] | None = None,
) -> None:
    """Where training went in a plane: a line a run, a ring at its start, a dot at its end.

    Args:
        runs: For each run its points, in order.
        ax: Where to draw.
        color: Of the lines.
        front: The Pareto set or front, drawn broad and grey below them.
    """
    if front is not None:
        ax.plot(*zip(*front, strict=True), color=NEUTRAL, linewidth=5, alpha=0.55, solid_capstyle="round")
    for run in runs:
        ax.plot(*zip(*run, strict=True), color=color, linewidth=1.2)
        ax.plot(*run[0], marker="o", color=color, markerfacecolor="none")
        ax.plot(*run[-1], marker="o", color=color, markersize=5)


def contours(
    a: Sequence[float], b: Sequence[float], values: Sequence[Sequence[float]], *, ax: Axes, levels: int = 12
) -> None:
    """Thin contour lines of a function of the plane, for a background.

    Args:
        a: Coordinates of the columns.
        b: Coordinates of the rows.
        values: Shape (len(b), len(a)).
        ax: Where to draw.
        levels: How many lines.
    """
    ax.contour(a, b, values, levels=levels, colors=NEUTRAL, linewidths=0.5, alpha=0.6, linestyles="solid")
