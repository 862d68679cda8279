"""The figures of the report, as SVG elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from html import escape
from itertools import chain, combinations
from statistics import fmean

from isonomy.bench.architectures import LAST_LAYER
from isonomy.bench.progress import number
from isonomy.bench.results import Results, Row, effective_weights
from isonomy.diagnostics import plots

WIDTH, HEIGHT = 3.5, 2.5
REFERENCE = "ew"


def styles(results: Results) -> dict[str, dict[str, str]]:
    """The look of every method, by title: plain summing is grey.

    Args:
        results: Of a sweep.
    """
    plain = [row.title for row in results.rows if row.name == REFERENCE]
    return plots.looks([row.title for row in results.rows], neutral=plain)


def legend(results: Results) -> str:
    """One legend for all curves, as HTML.

    Args:
        results: Of a sweep.
    """
    dashes = {"-": "none", "--": "7 4", "-.": "7 3 2 3", ":": "2 3"}
    lines = [(name, look["color"], dashes[look["linestyle"]]) for name, look in styles(results).items()]
    entries = [
        '<li><svg width="28" height="10" aria-hidden="true"><line x2="28" y1="5" y2="5" stroke-width="3" '
        f'stroke="{color}" stroke-dasharray="{dash}"/></svg> {escape(name)}</li>'
        for name, color, dash in [*lines, ("Single-task, last epoch", "currentColor", dashes[":"])]
    ]
    return f'<ul class="legend">{"".join(entries)}</ul>'


def deltas(results: Results) -> str:
    """Bars of Δp, the best method on top.

    Args:
        results: Of a sweep.
    """
    values = {row.title: (row.delta.mean, row.delta.std) for row in results.ranked if row.delta}
    colors = {name: look["color"] for name, look in styles(results).items()}
    said = "; ".join(f"{name} {mean:+.2f} %" for name, (mean, _) in values.items())
    with plots.canvas(6.4, 0.7 + 0.36 * len(values)) as (figure, ax):
        plots.delta_bars(values, ax=ax, colors=colors)
        return plots.vector(figure, f"Bars of Δp. {said}.")


def curves(results: Results) -> Iterator[tuple[str, str, list[str]]]:
    """The small multiples, a topic at a time.

    Args:
        results: Of a sweep.

    Yields:
        A heading, a sentence about what is drawn, and one SVG a task or pair of tasks.
    """
    tasks = [task.name for task in results.tasks]

    def judged(split: str, task: str, metric: str) -> Callable[[Row, int], float]:
        return lambda row, epoch: fmean(run[epoch][split][task][metric] for run in row.epochs)

    def recorded(name: str, task: str) -> Callable[[Row, int], float]:
        return lambda row, epoch: fmean(run[epoch][name][task] for run in row.epochs)

    def cosine(i: int, j: int) -> Callable[[Row, int], float]:
        return lambda row, epoch: fmean(run[epoch]["cosines"][i][j] for run in row.epochs)

    def weight(task: str) -> Callable[[Row, int], float]:
        return lambda row, epoch: effective_weights(row, epoch)[task]

    # Without a split for validation the test split's are there instead, where the best model on it counts.
    split = next((name for name in ("validation", "watched") if _every(results, name)), None)
    if split is not None:
        yield (
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
    yield (
        "Training losses",
        "Mean over the batches of an epoch, before any balancing.",
        [_panel(results, task, recorded("train_losses", task), log=positive) for task in tasks],
    )
    yield (
        "Effective weights",
        "What each task's gradient was multiplied by: loss weight times gradient weight. Plain summing has 1; methods "
        "that make a direction without weights have no curve.",
        [_panel(results, task, weight(task), log=True) for task in tasks],
    )
    yield (
        "Gradient norms",
        f"Length of each task's raw gradient at {_place(results)}, before any balancing.",
        [_panel(results, task, recorded("gradient_norms", task), log=True) for task in tasks],
    )
    if len(tasks) > 1:
        yield (
            "Cosines",
            "Between the raw gradients of two tasks: below 0 they conflict.",
            [
                _panel(results, f"{tasks[i]} and {tasks[j]}", cosine(i, j))
                for i, j in combinations(range(len(tasks)), 2)
            ],
        )


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
    reference: tuple[str, float] | None = None,
) -> str:
    series = {row.title: [value(row, epoch) for epoch in range(results.plan.recipe.epochs)] for row in results.rows}
    said = "; ".join(f"{name} ends at {number(v[-1])}" for name, v in series.items() if not math.isnan(v[-1]))
    with plots.canvas(WIDTH, HEIGHT) as (figure, ax):
        plots.curves(series, ax=ax, styles=styles(results), log=log, reference=reference)
        ax.set_title(title)
        return plots.vector(figure, f"Curves over epochs, {title}. {said}.")


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
        with plots.canvas(WIDTH, 3.0) as (figure, ax):
            plots.contours(a.tolist(), b.tolist(), height.tolist(), ax=ax)
            places = [[(point[0], point[1]) for point in run] for run in runs]
            plots.paths(places, ax=ax, color=color, front=[(x, y) for x, y in pareto.tolist()])
            ax.set(title=f"{row.title}: the plane", xlabel="a", ylabel="b", xlim=(-10.5, 10.5), ylim=(-10.5, 10.5))
            ends = ", ".join(f"({run[-1][0]:.1f}, {run[-1][1]:.1f})" for run in places)
            panels.append(plots.vector(figure, f"{row.title}: trajectories in the plane end at {ends}."))
        with plots.canvas(WIDTH, 3.0) as (figure, ax):
            values = [[(point[2], point[3]) for point in run] for run in runs]
            plots.paths(values, ax=ax, color=color, front=[(x, y) for x, y in front.tolist()])
            ax.set(title=f"{row.title}: the losses", xlabel="L1", ylabel="L2")
            ends = ", ".join(f"({run[-1][0]:.2f}, {run[-1][1]:.1f})" for run in values)
            panels.append(
                plots.vector(figure, f"{row.title}: losses end at {ends}; the Pareto front is the grey band.")
            )
    return panels


def _start(seed: int) -> list[float]:
    import torch  # noqa: PLC0415

    from isonomy.bench.data import toy  # noqa: PLC0415

    start = torch.tensor(toy.STARTS[seed % len(toy.STARTS)])
    return [*start.tolist(), *toy.landscape(start).tolist()]
