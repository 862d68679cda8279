"""Radar charts: what each task gains against single-task networks."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from isonomy.bench.experiments.figures import sheet
from isonomy.bench.experiments.figures.runs import changes
from isonomy.bench.experiments.measured import Measured
from isonomy.bench.options import name_of
from isonomy.diagnostics import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SINGLE = "Single-task"


def radar(found: Measured) -> Figure | None:
    """A row of charts for every data set, a chart for every method, a polygon for every network.

    The circle of 0 is drawn: outside of it a task is better than by a network of its own.

    Args:
        found: The experiment's sweeps.
    """
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - only those who draw wait for it

    charts: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for panel in found.experiment.panels:
        rows = {found.experiment.single or SINGLE: None, **panel.methods}
        for printed, ours in rows.items():
            if (gains := changes(found, panel, ours)) is not None:
                charts.setdefault((name_of(panel.data), printed), {})[panel.name] = gains
    if not charts:
        return None
    data, methods = (list(dict.fromkeys(key[place] for key in charts)) for place in (0, 1))
    figure, grid = sheet.grid(len(data), len(methods), (3.6, 3.9), subplot_kw={"projection": "polar"})
    looks = style.looks(list(dict.fromkeys(name for chart in charts.values() for name in chart)))
    for row, name in zip(grid, data, strict=True):
        reach = [
            gain
            for key, chart in charts.items()
            if key[0] == name
            for gains in chart.values()
            for gain in gains.values()
        ]
        for ax, method in zip(row, methods, strict=True):
            if (chart := charts.get((name, method))) is None:
                ax.set_axis_off()
                continue
            for label, gains in chart.items():
                _polygon(ax, f"{label}, {sheet.signed(fmean(gains.values()))} %", gains, looks[label])
            ax.set_title(f"{name}: {method}")
            low, high = min(0.0, *reach), max(0.0, *reach)
            ax.set_ylim(low - 0.15 * (high - low or 1), high + 0.05 * (high - low or 1))
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1))
    return figure


def _polygon(ax: Axes, label: str, gains: dict[str, float], look: dict[str, str]) -> None:
    turns = [2 * math.pi * place / len(gains) for place in range(len(gains))]
    around, values = [*turns, turns[0]], [*gains.values(), next(iter(gains.values()))]
    (line,) = ax.plot(around, values, label=label, marker="o")
    line.set(color=look["color"], linestyle=look["linestyle"])
    circle = [2 * math.pi * step / 90 for step in range(91)]
    ax.plot(circle, [0.0] * len(circle), color=style.NEUTRAL, linewidth=0.8)
    ax.set_xticks(turns, list(gains))
    ax.grid(color=style.NEUTRAL, alpha=0.25, linewidth=0.6)
