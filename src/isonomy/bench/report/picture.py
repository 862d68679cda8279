"""One picture of a sweep for a README: Δp and every task's metric, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isonomy.bench import records
from isonomy.bench.progress import heading
from isonomy.bench.report.figures import styles
from isonomy.bench.results import Results
from isonomy.diagnostics import comparisons, style
from isonomy.errors import IsonomyError

# A README is shown on white and on dark; mid-grey ink is readable on both.
INK = "#7d8590"
ENDINGS = (".svg", ".png", ".pdf")


def require_picture(path: Path) -> None:
    """Refuses a picture that cannot be written, before anything is written.

    Args:
        path: Where it is to go.

    Raises:
        IsonomyError: Its ending names no format that is offered, or its place cannot be used.
    """
    if path.suffix.lower() not in ENDINGS or path.is_dir():
        raise IsonomyError(f"--picture {path}: name a file that ends in {', '.join(ENDINGS)}.")
    records.require_writable(path.parent, "--picture")


def save_picture(results: Results, path: Path) -> None:
    """Draws Δp bars and the metric of every task, and saves them.

    Args:
        results: Of a sweep.
        path: Where; its ending chooses the format.

    Raises:
        IsonomyError: No method has a Δp yet.
    """
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    if not results.ranked:
        raise IsonomyError(
            "There is nothing to draw yet: no method has finished all its seeds; resume the sweep first."
        )
    rows = results.ranked
    looks = styles(results)
    ink: dict[Any, Any] = {name: INK for name, value in style.STYLE.items() if value == style.INK}
    with mpl.rc_context({**style.STYLE, **ink, "svg.fonttype": "path"}):
        count = len(results.tasks)
        figure = Figure(figsize=(4.2 + 2.3 * count, 0.9 + 0.34 * len(rows)), layout="constrained")
        first, *others = figure.subplots(1, 1 + count, width_ratios=[1.9] + [1] * count)
        values = {row.title: (row.delta.mean, row.delta.std) for row in rows if row.delta}
        comparisons.delta_bars(values, ax=first, colors={name: look["color"] for name, look in looks.items()})
        for ax, task in zip(others, results.tasks, strict=True):
            metric = task.metrics[0]
            spreads = [row.metrics[task.name][metric.name] for row in rows]
            for place, (row, spread) in enumerate(zip(rows, spreads, strict=True)):
                color = looks[row.title]["color"]
                ax.errorbar(spread.mean, place, xerr=spread.std or 0, fmt="o", color=color, capsize=3, markersize=6)
            if results.single is not None:
                ax.axvline(results.single.metrics[task.name][metric.name].mean, color=INK, linestyle=":", linewidth=1.2)
            ax.set_ylim(len(rows) - 0.4, -0.6)
            ax.set_yticks([])
            ax.set_title(f"{task.name}: {heading(metric)}")
            ax.set_xlabel("dotted: single-task")
        figure.savefig(path, dpi=200)
