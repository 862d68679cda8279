"""Bars: overall scores, each task's part of them, and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from isonomy.bench.delta import Spread
from isonomy.bench.experiments import published
from isonomy.bench.experiments.figures import sheet
from isonomy.bench.experiments.figures.runs import changes, lines
from isonomy.bench.experiments.measured import Measured
from isonomy.bench.experiments.published import OVERALL, Measure
from isonomy.bench.experiments.schema import Panel
from isonomy.bench.report.picture import INK
from isonomy.diagnostics import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bars = Mapping[str, Spread | None]
WIDTH = 0.8
ROW = 0.28  # inches
DELTA = "% against single-task training"


def deltas(found: Measured) -> Figure | None:
    """Overall scores of every method, with the published ones beside them where there are any.

    Args:
        found: The experiment's sweeps.
    """
    panels: list[tuple[str, dict[str, Bars]]] = []
    for panel in found.experiment.panels:
        ours = {name: found.spread(panel, method, Measure("overall")) for name, method in panel.methods.items()}
        if any(ours.values()):
            panels.append((panel.name, {"measured": ours, **_published(found, panel, ours)}))
    return _panels(panels, DELTA)


def _published(found: Measured, panel: Panel, shown: Bars) -> dict[str, Bars]:
    theirs = {
        number.method: Spread(float(number.value), float(number.std) if number.std else None, 1)
        for number in published.of_panel(found.experiment, panel)
        if number.metric in OVERALL and number.method in shown
    }
    return {"published": theirs} if theirs else {}


def task_deltas(found: Measured) -> Figure | None:
    """What each task gains or loses by every method.

    Args:
        found: The experiment's sweeps.
    """
    panels: list[tuple[str, dict[str, Bars]]] = []
    for panel in found.experiment.panels:
        series: dict[str, Bars] = {}
        for name, method in panel.methods.items():
            gains = changes(found, panel, method)
            if gains is not None:
                series[name] = {task: Spread(gain, None, 1) for task, gain in gains.items()}
        if series:
            panels.append((panel.name, series))
    return _panels(panels, DELTA)


def seconds(found: Measured) -> Figure | None:
    """Seconds of training in an epoch, the mean over epochs and seeds.

    Args:
        found: The experiment's sweeps.
    """
    panels: list[tuple[str, dict[str, Bars]]] = []
    for panel in found.experiment.panels:
        if (sweep := found.sweeps.get(panel.name)) is None:
            continue
        taken = {
            name: [line["seconds"] for run in lines(sweep, method) for line in run]
            for name, method in panel.methods.items()
        }
        if any(taken.values()):
            means = {name: Spread(fmean(epochs), None, len(epochs)) for name, epochs in taken.items() if epochs}
            panels.append((panel.name, {"measured": means}))
    return _panels(panels, "seconds an epoch")


def _panels(panels: Sequence[tuple[str, dict[str, Bars]]], unit: str) -> Figure | None:
    if not panels:
        return None
    rows = max(len(series) * len(_names(series)) for _, series in panels)
    figure, (axes,) = sheet.grid(1, len(panels), (4.2, 1.0 + ROW * max(rows, 3)))
    for ax, (name, series) in zip(axes, panels, strict=True):
        _bars(ax, series)
        ax.set(title=name, xlabel=unit)
    sheet.legend(figure, axes)
    return figure


def _names(series: dict[str, Bars]) -> list[str]:
    return list(dict.fromkeys(name for bars in series.values() for name in bars))


def _bars(ax: Axes, series: dict[str, Bars]) -> None:
    """Groups of horizontal bars, one a series, the first group on top; what is missing leaves a gap."""
    names, height = _names(series), WIDTH / len(series)
    for number, (label, bars) in enumerate(series.items()):
        shift = (number - (len(series) - 1) / 2) * height
        known = [(place + shift, bars[name]) for place, name in enumerate(names) if bars.get(name) is not None]
        places, spreads = [place for place, _ in known], [spread for _, spread in known if spread is not None]
        means, errors = [spread.mean for spread in spreads], [spread.std or 0.0 for spread in spreads]
        color = style.NEUTRAL if label == "published" else style.PALETTE[number % len(style.PALETTE)]
        ax.barh(places, means, height, color=color, label=label)
        if any(errors):
            ax.errorbar(means, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
