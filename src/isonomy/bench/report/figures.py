"""The figures of the report, as SVG elements."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain, combinations
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import isonomy
from isonomy.bench import methods
from isonomy.bench.architectures import LAST_LAYER
from isonomy.bench.progress import number
from isonomy.bench.results import Results, Row, effective_weights
from isonomy.diagnostics import comparisons, shell, style
from isonomy.diagnostics.invariance import TASKS, invariance
from isonomy.errors import IsonomyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 3.5, 2.5
REFERENCE = "ew"
# Pairs of tasks that have panels of their own: few enough for one page.
PAIRS = 12


def styles(results: Results) -> dict[str, dict[str, str]]:
    """The look of every method, by title: plain summing is grey.

    Args:
        results: Of a sweep.
    """
    plain = [row.title for row in results.rows if row.name == REFERENCE]
    return style.looks([row.title for row in results.rows], neutral=plain)


def legend(results: Results) -> str:
    """One legend for all curves, as HTML.

    Args:
        results: Of a sweep.
    """
    alone = {"Single-task, last epoch": {"color": "currentColor", "linestyle": ":"}}
    return shell.legend(styles(results) | alone)


def deltas(results: Results) -> str:
    """Bars of Δp, the best method on top.

    Args:
        results: Of a sweep.
    """
    values = {row.title: (row.delta.mean, row.delta.std) for row in results.ranked if row.delta}
    colors = {name: look["color"] for name, look in styles(results).items()}
    said = "; ".join(f"{name} {mean:+.2f} %" for name, (mean, _) in values.items())
    with _bars(values) as (figure, ax):
        comparisons.delta_bars(values, ax=ax, colors=colors)
        return style.vector(figure, f"Bars of Δp. {said}.")


def times(results: Results) -> str:
    """Bars of the time of a step; empty where nobody took it.

    Args:
        results: Of a sweep.
    """
    ratios = {row.title: row.ratio for row in results.rows}
    return _by_method(results, ratios, comparisons.time_bars, "the time of a step, relative to plain summing")


def invariances(results: Results) -> str:
    """Bars of how much each method minds the unit of a loss; empty where it can be asked of none.

    Args:
        results: Of a sweep.
    """
    moved = {row.title: _moved(row.name) for row in results.rows}
    return _by_method(results, moved, comparisons.invariance_bars, "the change when a loss is multiplied by ten")


def _by_method(results: Results, values: Mapping[str, float | None], draw: Callable[..., None], what: str) -> str:
    """Bars of those methods that have a value."""
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return ""
    colors = {name: look["color"] for name, look in styles(results).items()}
    said = "; ".join(f"{name} {value:.2f}" for name, value in known.items())
    with _bars(known) as (figure, ax):
        draw(known, ax=ax, colors=colors)
        return style.vector(figure, f"Bars of {what}. {said}.")


@functools.cache
def _moved(name: str) -> float | None:
    """How much a method minds; None for one that needs more than two losses: a network or options for other tasks."""
    named = methods.find(name)
    if not named.method.stages:
        return None
    try:
        return invariance(lambda: isonomy.build(named.method.name, tasks=TASKS, **named.options))
    except IsonomyError:
        return None


def _bars(values: Mapping[str, object]) -> AbstractContextManager[tuple[Figure, Axes]]:
    """A canvas for bars, no wider than their names ask for: letters shrink with a figure that is wider than a phone."""
    return style.canvas(3.2 + 0.075 * max(map(len, values)), 0.7 + 0.36 * len(values))


class Topic(NamedTuple):
    """Small multiples.

    Attributes:
        heading: Of all of them.
        sentence: What is drawn.
        panels: An SVG a task or pair of tasks.
        folded: Whether the page shows them only when asked.
    """

    heading: str
    sentence: str
    panels: list[str]
    folded: bool = False


def curves(results: Results) -> Iterator[Topic]:
    """The small multiples, a topic at a time.

    Args:
        results: Of a sweep.
    """
    tasks = [task.name for task in results.tasks]

    def judged(split: str, task: str, metric: str) -> Callable[[Row, int], float]:
        return lambda row, epoch: fmean(run[epoch][split][task][metric] for run in row.epochs)

    def recorded(name: str, task: str) -> Callable[[Row, int], float]:
        return lambda row, epoch: fmean((run[epoch].get(name) or {}).get(task, math.nan) for run in row.epochs)

    def weight(task: str) -> Callable[[Row, int], float]:
        return lambda row, epoch: effective_weights(row, epoch)[task]

    # Without a split for validation the test split's are there instead, where the best model on it counts.
    split = next((name for name in ("validation", "watched") if _every(results, name)), None)
    if split is not None:
        yield Topic(
            "Validation metrics" if split == "validation" else "Test metrics",
            "Mean over seeds after every epoch; dotted, what a network of its own reaches.",
            [
                _panel(
                    results,
                    f"{task.name}: {task.metrics[0].name} {'↑' if task.metrics[0].up else '↓'}",
                    judged(split, task.name, task.metrics[0].name),
                    reference=_alone(results, split, task.name, task.metrics[0].name),
                )
                for task in results.tasks
            ],
        )
    positive = all(
        value > 0 for row in results.rows for run in row.epochs for e in run for value in e["train_losses"].values()
    )
    yield Topic(
        "Training losses",
        "Mean over the batches of an epoch, before any balancing.",
        [_panel(results, task, recorded("train_losses", task), log=positive) for task in tasks],
    )
    yield Topic(
        "Effective weights",
        "What each task's gradient was multiplied by: loss weight times gradient weight. Plain summing has 1; methods "
        "that make a direction without weights have no curve.",
        [_panel(results, task, weight(task), log=True) for task in tasks],
    )
    yield Topic(
        "Gradient norms",
        f"Length of each task's raw gradient at {_place(results)}, before any balancing.",
        [_panel(results, task, recorded("gradient_norms", task), log=True) for task in tasks],
    )
    if _any(results, "alignment"):
        yield Topic(
            "Alignment",
            "Cosine of each task's gradient with the update of the shared parameters: below 0 the update makes the "
            "task worse. Methods that make a direction without weights have no curve.",
            [_panel(results, task, recorded("alignment", task)) for task in tasks],
        )
    if len(tasks) > 1:
        yield from _of_pairs(results, tasks)
    if _any(results, "feature_distance"):
        yield Topic(
            "Feature distances",
            "How far the shared feature is from that of each task's own network, which was trained before.",
            [_panel(results, task, recorded("feature_distance", task)) for task in tasks],
        )


def _of_pairs(results: Results, tasks: Sequence[str]) -> Iterator[Topic]:
    def entry(name: str, i: int, j: int) -> Callable[[Row, int], float]:
        return lambda row, epoch: fmean(
            run[epoch][name][i][j] if name in run[epoch] else math.nan for run in row.epochs
        )

    def conflicts(row: Row, epoch: int) -> float:
        return fmean(100 * (run[epoch]["cosines"][i][j] < 0) for run in row.epochs for i, j in pairs)

    def lowest(pair: tuple[int, int]) -> float:
        return fmean(line["cosines"][pair[0]][pair[1]] for row in results.rows for run in row.epochs for line in run)

    pairs = list(combinations(range(len(tasks)), 2))
    shown = sorted(sorted(pairs, key=lowest)[:PAIRS])
    names = {pair: f"{tasks[pair[0]]} and {tasks[pair[1]]}" for pair in shown}
    which = f" The {PAIRS} of {len(pairs)} pairs whose cosines are lowest." if len(pairs) > PAIRS else ""
    yield Topic(
        "Cosines",
        f"Between the raw gradients of two tasks: below 0 they conflict.{which}",
        [_panel(results, name, entry("cosines", *pair)) for pair, name in names.items()],
    )
    yield Topic(
        "Conflicts",
        "How many of the pairs of tasks have an epoch's mean cosine below 0, in percent.",
        [_panel(results, "pairs in conflict, %", conflicts)],
    )
    if _any(results, "dots"):
        yield Topic(
            "Dot products",
            f"Of the raw gradients of two tasks, on a logarithmic scale both ways.{which}",
            [_panel(results, name, entry("dots", *pair), symlog=True) for pair, name in names.items()],
            folded=True,
        )


def _any(results: Results, name: str) -> bool:
    """Whether some epoch's line has something that not all lines have."""
    return any(line.get(name) for row in results.rows for run in row.epochs for line in run)


def _place(results: Results) -> str:
    return "the last shared layer" if LAST_LAYER in results.problem.levels else "the shared part"


def _every(results: Results, split: str) -> bool:
    """Whether every epoch of every run was judged on a split."""
    alone = (run for runs in results.single_epochs.values() for run in runs)
    return all(split in line for run in chain(alone, *(row.epochs for row in results.rows)) for line in run)


def _alone(results: Results, split: str, task: str, metric: str) -> tuple[str, float] | None:
    runs = results.single_epochs[task]
    if not all(runs):
        return None
    return "Single-task", fmean(run[-1][split][task][metric] for run in runs)


def _panel(
    results: Results,
    title: str,
    value: Callable[[Row, int], float],
    log: bool = False,
    symlog: bool = False,
    reference: tuple[str, float] | None = None,
) -> str:
    series = {row.title: [value(row, epoch) for epoch in range(results.plan.recipe.epochs)] for row in results.rows}
    said = "; ".join(f"{name} ends at {number(v[-1])}" for name, v in series.items() if not math.isnan(v[-1]))
    with style.canvas(WIDTH, HEIGHT) as (figure, ax):
        comparisons.curves(series, ax=ax, styles=styles(results), log=log, reference=reference)
        if symlog:
            comparisons.symlog(ax, [point for values in series.values() for point in values])
        ax.set_title(title)
        return style.vector(figure, f"Curves over epochs, {title}. {said}.")


def landscapes(results: Results) -> list[str]:
    """For ``toy``, two panels a method: the trajectories in the plane and in the space of the losses.

    Args:
        results: Of a sweep.
    """
    import torch  # noqa: PLC0415

    from isonomy.bench.data import toy  # noqa: PLC0415

    a, b = torch.linspace(-10, 10, 60), torch.linspace(-10, 10, 60)
    height = toy.landscape(torch.stack(torch.meshgrid(a, b, indexing="xy"), dim=-1))[..., :].sum(dim=-1)
    pareto = toy.pareto()
    front = toy.landscape(pareto)
    panels = []
    for row in results.rows:
        color = styles(results)[row.title]["color"]
        runs = [
            [_start(seed), *(point for line in run for point in line["trace"])] for seed, run in enumerate(row.epochs)
        ]
        with style.canvas(WIDTH, 3.0) as (figure, ax):
            comparisons.contours(a.tolist(), b.tolist(), height.tolist(), ax=ax)
            places = [[(point[0], point[1]) for point in run] for run in runs]
            comparisons.paths(places, ax=ax, color=color, front=[(x, y) for x, y in pareto.tolist()])
            ax.set(title=f"{row.title}: the plane", xlabel="a", ylabel="b", xlim=(-10.5, 10.5), ylim=(-10.5, 10.5))
            ends = ", ".join(f"({run[-1][0]:.1f}, {run[-1][1]:.1f})" for run in places)
            panels.append(style.vector(figure, f"{row.title}: trajectories in the plane end at {ends}."))
        with style.canvas(WIDTH, 3.0) as (figure, ax):
            values = [[(point[2], point[3]) for point in run] for run in runs]
            comparisons.paths(values, ax=ax, color=color, front=[(x, y) for x, y in front.tolist()])
            ax.set(title=f"{row.title}: the losses", xlabel="L1", ylabel="L2")
            ends = ", ".join(f"({run[-1][0]:.2f}, {run[-1][1]:.1f})" for run in values)
            panels.append(
                style.vector(figure, f"{row.title}: losses end at {ends}; the Pareto front is the grey band.")
            )
    return panels


def _start(seed: int) -> list[float]:
    import torch  # noqa: PLC0415

    from isonomy.bench.data import toy  # noqa: PLC0415

    start = torch.tensor(toy.STARTS[seed % len(toy.STARTS)])
    return [*start.tolist(), *toy.landscape(start).tolist()]
