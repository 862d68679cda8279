"""Figures that compare methods, each a function that draws into ``ax``. Needs ``isonomy[plot]``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from isonomy.diagnostics.style import NEUTRAL, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Styles = Mapping[str, Mapping[str, str]]

# Points of a line; of more, each stretch keeps its highest and its lowest.
POINTS = 240


def curves(
    series: Mapping[str, Sequence[float]],
    *,
    ax: Axes,
    x: Sequence[float] | None = None,
    unit: str = "epoch",
    styles: Styles | None = None,
    log: bool = False,
    reference: tuple[str, float] | None = None,
) -> None:
    """Lines over training, one a method or task, with gaps where a value is not finite.

    Args:
        series: For each line its values.
        ax: Where to draw.
        x: Where along the axis; None for 1, 2, 3, ...
        unit: What ``x`` counts.
        styles: For each line, its colour and dash, as ``style.looks`` gives them.
        log: Whether the values are on a logarithmic scale; those that are not positive are then left out.
        reference: A name and a value for a dotted horizontal line.
    """
    drawn: list[float] = []
    for name, values in series.items():
        there = [value if math.isfinite(value) and (value > 0 or not log) else math.nan for value in values]
        points = _thinned(list(range(1, len(values) + 1) if x is None else x), there)
        marker = "o" if len(points) < 15 or _lonely([value for _, value in points]) else ""
        ax.plot(*zip(*points, strict=True), label=name, marker=marker, **(styles or {}).get(name, {}))  # type: ignore[arg-type]
        drawn += [value for _, value in points if not math.isnan(value)]
    if reference is not None:
        ax.axhline(reference[1], color=ink(), linestyle=":", linewidth=1.2, label=reference[0])
    if log:
        _log_scale(ax, drawn)
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    ax.grid(axis="y", color=NEUTRAL, alpha=0.25, linewidth=0.6)
    ax.set_xlabel(unit)


def _thinned(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
    """Points that look as all of them do: of each of so many stretches the highest and the lowest, in their order."""
    if len(y) <= POINTS:
        return list(zip(x, y, strict=True))
    stretches = POINTS // 2
    kept: list[int] = []
    for number in range(stretches):
        stretch = range(number * len(y) // stretches, (number + 1) * len(y) // stretches)
        there = [place for place in stretch if not math.isnan(y[place])] or [stretch[0]]
        kept += sorted({min(there, key=lambda place: y[place]), max(there, key=lambda place: y[place])})
    return [(x[place], y[place]) for place in kept]


def _lonely(values: Sequence[float]) -> bool:
    """Whether a value stands between gaps, where a line would not show it."""
    gaps = [True, *map(math.isnan, values), True]
    return any(before and after and not here for before, here, after in zip(gaps, gaps[1:], gaps[2:], strict=False))


def ink() -> str:
    """The colour of text, in the house style or anybody's."""
    import matplotlib as mpl  # noqa: PLC0415 - only those who draw wait for it

    return str(mpl.rcParams["text.color"])


def _log_scale(ax: Axes, values: Sequence[float]) -> None:
    """A logarithmic y axis with plain numbers, and enough of them when the values span less than two decades."""
    from matplotlib.ticker import LogLocator, NullLocator  # noqa: PLC0415

    ax.set_yscale("log")
    narrow = bool(values) and max(values) < 100 * min(values)
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=9))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")


def symlog(ax: Axes, values: Sequence[float]) -> None:
    """A y axis that is logarithmic both ways from 0, and linear where only the least tenth of some values is.

    Args:
        ax: Whose.
        values: What is drawn.
    """
    from matplotlib.ticker import NullLocator, SymmetricalLogLocator  # noqa: PLC0415

    sizes = sorted(abs(value) for value in values if value and math.isfinite(value))
    largest = sizes[-1] if sizes else 1.0
    # Four decades are as many as have room for their numbers.
    linear = 10.0 ** math.ceil(math.log10(max(sizes[len(sizes) // 10] if sizes else 1.0, 1e-4 * largest)))
    ax.set_yscale("symlog", linthresh=linear)
    locator = SymmetricalLogLocator(base=10, linthresh=linear)
    locator.set_params(numticks=7)
    ax.yaxis.set_major_locator(locator)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(lambda value, place: f"{value:g}".replace("-", "−"))
    ax.axhline(0, color=ink(), linewidth=0.8)


def delta_bars(
    deltas: Mapping[str, tuple[float, float | None]], *, ax: Axes, colors: Mapping[str, str] | None = None
) -> None:
    """Horizontal bars of Δp with their deviations, the first on top.

    Args:
        deltas: For each method, the mean and the deviation in percent.
        ax: Where to draw.
        colors: For each method; grey by default.
    """
    _bars(deltas, "{:+.1f}", ax, colors)
    ax.axvline(0, color=ink(), linewidth=0.8)
    ax.set_xlabel("Δp, % against single-task training")


def time_bars(ratios: Mapping[str, float], *, ax: Axes, colors: Mapping[str, str] | None = None) -> None:
    """Horizontal bars of the time of a step (Lin et al., "Dual-Balancing for Multi-Task Learning", Figure 7).

    Args:
        ratios: For each method, relative to plain summing, where a line is drawn.
        ax: Where to draw.
        colors: For each method; grey by default.
    """
    _bars({name: (ratio, None) for name, ratio in ratios.items()}, "{:.2f}", ax, colors)
    ax.axvline(1, color=ink(), linestyle=":", linewidth=1.2)
    ax.set_xlabel("time of a step, relative to plain summing")


def invariance_bars(moved: Mapping[str, float], *, ax: Axes, colors: Mapping[str, str] | None = None) -> None:
    """Horizontal bars of how much a training changes when a loss is given in another unit.

    Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, asks it in Table 1.

    Args:
        moved: For each method, as ``isonomy.diagnostics.invariance`` measures it.
        ax: Where to draw.
        colors: For each method; grey by default.
    """
    _bars({name: (100 * part, None) for name, part in moved.items()}, "{:.0f}", ax, colors)
    ax.set_xlabel("change of the errors when a loss is multiplied by ten, %")


def _bars(
    values: Mapping[str, tuple[float, float | None]], form: str, ax: Axes, colors: Mapping[str, str] | None
) -> None:
    """Horizontal bars with their numbers, the first on top."""
    names = list(values)
    means = [values[name][0] for name in names]
    errors = [values[name][1] or 0.0 for name in names]
    places = range(len(names))
    ax.barh(places, means, color=[(colors or {}).get(name, NEUTRAL) for name in names], height=0.62)
    ax.set_yticks(places, names)
    if any(errors):
        ax.errorbar(means, places, xerr=errors, fmt="none", ecolor=ink(), elinewidth=1, capsize=3)
    ax.invert_yaxis()
    ends = [(mean - error, mean + error) for mean, error in zip(means, errors, strict=True)]
    low, high = min(0.0, *(end[0] for end in ends)), max(0.0, *(end[1] for end in ends))
    room = 0.16 * (high - low or 1.0)
    for place, (mean, (left, right)) in enumerate(zip(means, ends, strict=True)):
        at, side = (left - 0.1 * room, "right") if mean < 0 else (right + 0.1 * room, "left")
        ax.text(at, place, form.format(mean).replace("-", "−"), ha=side, va="center", fontsize=8, color=ink())
    ax.set_xlim(low - room * (low < 0), high + room * (high > 0 or low == high))
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0, labelsize=9)


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
