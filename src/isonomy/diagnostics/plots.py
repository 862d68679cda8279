"""Figures of balanced training, each a function that draws into ``ax``. Needs ``isonomy[plot]``.

These show the tasks of one training over its steps; those of ``comparisons`` several methods.

Example:
    >>> figure, ax = matplotlib.pyplot.subplots()
    >>> isonomy.diagnostics.plots.norms(monitor.recording, ax=ax)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isonomy.diagnostics import style
from isonomy.diagnostics.comparisons import Styles, curves, ink, symlog
from isonomy.diagnostics.recording import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Lines that a reader can still tell apart; of more, the highest and the lowest are drawn, and a band for the others.
SHOWN = 8


def losses(recording: Recording, *, ax: Axes, legend: bool = True) -> None:
    """Each task's loss, before any balancing (Lin et al., "Dual-Balancing for Multi-Task Learning", Figure 8).

    Args:
        recording: Of a training.
        ax: Where to draw.
        legend: Whether the lines are explained.
    """
    seen = recording.losses[recording.losses.isfinite()]
    _tasks(recording, recording.losses, ax, "loss", legend, log=bool((seen > 0).all()))


def weights(recording: Recording, *, ax: Axes, legend: bool = True) -> None:
    """What each task's gradient is multiplied by: the loss balancers' weight times the gradient balancer's.

    Args:
        recording: Of a training.
        ax: Where to draw.
        legend: Whether the lines are explained.
    """
    products = recording.loss_weights * recording.weights
    seen = products[products.isfinite()]
    _tasks(recording, products, ax, "weight", legend, log=bool((seen > 0).all()))


def norms(recording: Recording, *, ax: Axes, legend: bool = True) -> None:
    """Length of each task's gradient, before any balancing.

    Guo et al., "Revisit the Imbalance Optimization in Multi-Task Learning: An Experimental Analysis", 2025.

    Args:
        recording: Of a training.
        ax: Where to draw.
        legend: Whether the lines are explained.
    """
    _tasks(recording, recording.raw_norms, ax, "gradient norm", legend, log=True)


def shares(recording: Recording, *, ax: Axes, legend: bool = True) -> None:
    """How much of the shared update is each task's doing, in percent; they sum to 100.

    Args:
        recording: Of a training.
        ax: Where to draw.
        legend: Whether the lines are explained.
    """
    _tasks(recording, 100 * recording.shares, ax, "share of the update, %", legend)
    ax.axhline(0, color=ink(), linewidth=0.8)


def alignment(recording: Recording, *, ax: Axes, legend: bool = True) -> None:
    """Cosine of each task's gradient with the shared update; below 0 the update makes the task worse.

    Args:
        recording: Of a training.
        ax: Where to draw.
        legend: Whether the lines are explained.
    """
    _tasks(recording, recording.alignment, ax, "cosine with the update", legend)
    _between(ax, -1, 1)


def cosines(recording: Recording, *, ax: Axes, legend: bool = True) -> None:
    """Cosine of the gradients of each pair of tasks; below 0 they conflict.

    Args:
        recording: Of a training with two tasks or more.
        ax: Where to draw.
        legend: Whether the lines are explained.
    """
    _lines(recording, _of_pairs(recording, recording.cosines), pair_looks(recording), ax, "cosine", legend)
    _between(ax, -1, 1)


def dots(recording: Recording, *, ax: Axes, legend: bool = True) -> None:
    """Inner product of the gradients of each pair of tasks, before any balancing, on a logarithmic scale both ways.

    Args:
        recording: Of a training with two tasks or more.
        ax: Where to draw.
        legend: Whether the lines are explained.
    """
    values = _of_pairs(recording, recording.dots)
    _lines(recording, values, pair_looks(recording), ax, "dot product", legend)
    symlog(ax, torch.stack([*values.values()]).flatten().tolist())


def conflicts(recording: Recording, *, ax: Axes) -> None:
    """How many of the pairs of tasks conflict, having gradients more than 90 degrees apart, in percent.

    Args:
        recording: Of a training with two tasks or more.
        ax: Where to draw.
    """
    rate = {"pairs in conflict": (100 * recording.conflicts).tolist()}
    curves(rate, ax=ax, x=recording.steps.tolist(), unit=recording.unit, styles=style.looks(list(rate)))
    ax.set_ylabel("pairs in conflict, %")
    ax.set_ylim(-3, 103)


def task_looks(recording: Recording) -> dict[str, dict[str, str]]:
    """Colour and dash of the tasks that are drawn as lines, the same in all figures of a recording.

    Of more than ``SHOWN`` tasks these are the ones with the largest and the smallest part in the update; gradient norms
    stand in for a method without weights.

    Args:
        recording: Of a training.
    """
    sizes = recording.norms if recording.weights.isnan().all() else recording.parts
    return _extremes(dict(zip(recording.tasks, sizes.unbind(1), strict=True)))


def pair_looks(recording: Recording) -> dict[str, dict[str, str]]:
    """Colour and dash of the pairs of tasks that are drawn as lines: of many, those of the lowest and highest cosine.

    Args:
        recording: Of a training.
    """
    return _extremes(_of_pairs(recording, recording.cosines))


def _extremes(values: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    if len(values) > SHOWN:
        middle = {name: float(column.nanmedian()) for name, column in values.items()}
        ranked = sorted((name for name in values if not math.isnan(middle[name])), key=lambda name: middle[name])
        chosen = {*ranked[: SHOWN // 2], *ranked[-(SHOWN // 2) :]}
        values = {name: column for name, column in values.items() if name in chosen}
    return style.looks(list(values))


def _of_pairs(recording: Recording, matrices: Tensor) -> dict[str, Tensor]:
    """The entries of stacked matrices by names of pairs, shape (N,) each."""
    places = combinations(range(len(recording.tasks)), 2)
    return {f"{recording.tasks[i]}, {recording.tasks[j]}": matrices[:, i, j] for i, j in places}


def _tasks(recording: Recording, values: Tensor, ax: Axes, label: str, legend: bool, log: bool = False) -> None:
    named = dict(zip(recording.tasks, values.unbind(1), strict=True))
    _lines(recording, named, task_looks(recording), ax, label, legend, log)


def _lines(
    recording: Recording,
    values: Mapping[str, Tensor],
    looks: Styles,
    ax: Axes,
    label: str,
    legend: bool,
    log: bool = False,
) -> None:
    """Lines over steps, for those that have a look of their own; a band for the others."""
    steps = recording.steps.tolist()
    others = [column for name, column in values.items() if name not in looks]
    if others:
        stacked = torch.stack(others)
        low = stacked.nan_to_num(nan=torch.inf, neginf=torch.inf).amin(0)
        high = stacked.nan_to_num(nan=-torch.inf, posinf=-torch.inf).amax(0)
        there = ((low <= high) & ((low > 0) | (not log))).tolist()
        band = {"color": style.NEUTRAL, "alpha": 0.3, "linewidth": 0, "label": f"the other {len(others)}"}
        ax.fill_between(steps, low.tolist(), high.tolist(), where=there, **band)  # type: ignore[arg-type]
    series = {name: values[name].tolist() for name in looks}
    curves(series, ax=ax, x=steps, unit=recording.unit, styles=looks, log=log)
    ax.set_ylabel(label)
    if legend:
        handles = [*ax.lines, *ax.collections]
        # An explicit space: a name that begins with an underscore is none to matplotlib.
        names = [f" {name}" for name in looks] + [str(found.get_label()) for found in ax.collections]
        for text in ax.legend(handles, names).get_texts():
            text.set_parse_math(False)


def _between(ax: Axes, low: float, high: float) -> None:
    """A scale of what lies between two numbers, with a line at 0."""
    ax.axhline(0, color=ink(), linewidth=0.8)
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
