"""The report of one training: findings first, then the numbers and figures they rest on. Needs ``isonomy[plot]``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

import isonomy
from isonomy.diagnostics import plots, shell, style
from isonomy.diagnostics.findings import Finding, findings, summary
from isonomy.diagnostics.recording import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORT = "report.html"
# Inches: as wide as a phone, so that letters there keep their size.
WIDTH, HEIGHT = 3.6, 2.4
MINUS = "−"
# What findings judge.
LATELY = "medians of the later half of the looks"


class Topic(NamedTuple):
    """A figure of the report.

    Attributes:
        heading: Of it.
        sentence: What is drawn.
        draw: Draws it.
        values: What is drawn; without a number in it there is no figure.
    """

    heading: str
    sentence: str
    draw: Callable[[Recording, Axes], None]
    values: Callable[[Recording], Tensor]


def _without_legend(draw: Callable[..., None]) -> Callable[[Recording, Axes], None]:
    """The page has one for all."""
    return lambda recording, ax: draw(recording, ax=ax, legend=False)


OF_ONE = (
    Topic("Losses", "Before any balancing.", _without_legend(plots.losses), lambda seen: seen.losses),
    Topic(
        "Gradient norms",
        "Length of each task's gradient, before any balancing.",
        _without_legend(plots.norms),
        lambda seen: seen.raw_norms,
    ),
    Topic(
        "Weights",
        "What each task's gradient is multiplied by.",
        _without_legend(plots.weights),
        lambda seen: seen.loss_weights * seen.weights,
    ),
)
OF_SEVERAL = (
    Topic(
        "Shares of the update",
        "How much of the shared parameters' update is each task's doing.",
        _without_legend(plots.shares),
        lambda seen: seen.shares,
    ),
    Topic(
        "Alignment",
        "Cosine of each task's gradient with the update; below 0 the update makes the task worse.",
        _without_legend(plots.alignment),
        lambda seen: seen.alignment,
    ),
)
OF_PAIRS = (
    Topic(
        "Cosines",
        "Between the gradients of two tasks; below 0 they conflict, around 0 they do not mind each other.",
        _without_legend(plots.cosines),
        lambda seen: seen.cosines,
    ),
    Topic(
        "Dot products",
        "The same with lengths, before any balancing: who can push whom how far.",
        _without_legend(plots.dots),
        lambda seen: seen.dots,
    ),
    Topic(
        "Conflicts",
        "Pairs of tasks whose gradients are more than 90 degrees apart; unrelated ones are half of the time.",
        lambda recording, ax: plots.conflicts(recording, ax=ax),
        lambda seen: seen.conflicts,
    ),
)


def render(recording: Recording, title: str | None = None) -> str:
    """The report as one self-contained HTML page, the same for the same recording.

    Args:
        recording: With one look at least.
        title: Its heading; None for the method's name.
    """
    heading = title or f"{recording.method}: what the gradients say"
    pairs = len(recording.tasks) > 1
    body = [
        f"<h1>{escape(heading)}</h1>",
        f'<p class="soft">{escape(_seen(recording))}</p>',
        "<h2>Findings</h2>",
        _findings(recording),
        "<h2>Task by task</h2>",
        _tasks(recording),
    ]
    several = len(recording) > 1
    if several:
        topics = OF_ONE + OF_SEVERAL * pairs
        body += _section(recording, "Over training", topics, plots.task_looks(recording), len(recording.tasks), "tasks")
    if pairs:
        count = math.comb(len(recording.tasks), 2)
        if several:
            body += _section(recording, "Pairs of tasks", OF_PAIRS, plots.pair_looks(recording), count, "pairs")
        if not recording.cosines.isnan().all():
            body.append(shell.folded("Every pair in numbers", _pairs(recording), unfolded=not several))
    body += ["<h2>How it was measured</h2>", _protocol(recording)]
    return shell.page(heading, body)


def _seen(recording: Recording) -> str:
    """How much was looked at, in a sentence."""
    tasks, looks = len(recording.tasks), len(recording)
    text = f"{looks} look{'s' * (looks > 1)} at {tasks} task{'s' * (tasks > 1)}"
    if looks > 1:
        text += f", from {recording.unit} {int(recording.steps[0])} to {int(recording.steps[-1])}"
    return f"{text}, at {recording.place}."


def _findings(recording: Recording) -> str:
    found = findings(recording)
    if not found:
        return f'<p class="lead">{shell.prose(" ".join(summary(recording)))}</p>'
    return f'<ol class="findings">{"".join(map(_finding, found))}</ol>'


def _finding(finding: Finding) -> str:
    kind = finding.kind.replace("_", " ").replace("nonfinite", "not finite").capitalize()
    about = ", ".join(finding.tasks[:3]) + (f" and {len(finding.tasks) - 3} more" if len(finding.tasks) > 3 else "")
    return (
        f"<li><h3>{escape(f'{kind}: {about}' if about else kind)}</h3>\n<p>{shell.prose(finding.text)}</p>\n"
        f"<p><strong>What to do:</strong> {shell.prose(finding.remedy)}</p></li>"
    )


def _tasks(recording: Recording) -> str:
    """A row a task: its loss over all looks, the rest as it is lately."""
    lately: list[tuple[str, Tensor, Callable[[float], str]]] = [
        ("weight", recording.loss_weights * recording.weights, number),
        ("gradient\nnorm", recording.raw_norms, number),
    ]
    if len(recording.tasks) > 1:
        lately += [
            ("share of\nthe update, %", 100 * recording.shares, lambda value: fixed(value, 1)),
            ("cosine with\nthe update", recording.alignment, fixed),
        ]
    columns = [(name, _recent(values), write) for name, values, write in lately if not values.isnan().all()]
    several = len(recording) > 1
    rows = []
    for place, task in enumerate(recording.tasks):
        losses = recording.losses[:, place]
        there = losses[~losses.isnan()].tolist()
        loss = [number(there[0]), number(there[-1])] if there else ["–"]
        others = [write(float(values[place])) for _, values, write in columns]
        rows.append([task, " → ".join(loss[: 1 + several]), *others])
    when = f"Losses at the first and the last look; the rest, {LATELY}."
    return shell.table(
        when if several else "At the one look there is.",
        ["task", "loss,\nfirst → last" if several else "loss", *(name for name, _, _ in columns)],
        rows,
    )


def _section(
    recording: Recording,
    heading: str,
    topics: Sequence[Topic],
    looks: Mapping[str, Mapping[str, str]],
    count: int,
    things: str,
) -> Iterator[str]:
    """Figures under a heading, with one legend; nothing where nothing was recorded."""
    shown = [topic for topic in topics if topic.values(recording).isfinite().any()]
    if not shown:
        return
    yield f"<h2>{heading}</h2>"
    yield shell.legend(looks, f"the other {count - len(looks)} {things}" if count > len(looks) else None)
    sections = [
        f"<section><h3>{topic.heading}</h3>\n<p>{topic.sentence}</p>\n"
        f"{shell.figure(_drawn(recording, topic))}</section>"
        for topic in shown
    ]
    yield f'<div class="grid topics">{"".join(sections)}</div>'


def _drawn(recording: Recording, topic: Topic) -> str:
    with style.canvas(WIDTH, HEIGHT) as (figure, ax):
        topic.draw(recording, ax)
        ends = []
        for line in ax.lines:
            name, values = str(line.get_label()), [v for v in line.get_ydata() if math.isfinite(v)]  # type: ignore[union-attr, arg-type]
            if values and not name.startswith("_child"):  # as lines are called that are not of the data
                ends.append(f"{name} ends at {number(float(values[-1]))}")  # type: ignore[arg-type]
        return style.vector(figure, f"{topic.heading} over {recording.unit}s. {'; '.join(ends)}.")


def _pairs(recording: Recording) -> str:
    cosines = _recent(recording.cosines).tolist()
    rows = [[task, *map(fixed, line)] for task, line in zip(recording.tasks, cosines, strict=True)]
    caption = f"Cosines of the gradients, {LATELY}" if len(recording) > 1 else "Cosines of the gradients"
    return shell.table(caption, ["task", *recording.tasks], rows)


def _protocol(recording: Recording) -> str:
    taken = recording.seconds[recording.seconds.isfinite()]
    skipped = int(recording.skipped.sum())
    last = int(recording.steps[-1])
    return shell.facts(
        {
            "Balanced by": recording.method,
            "Gradients": f"taken at {recording.place}",
            "Looks": f"{len(recording)}, the last at {recording.unit} {last}",
            f"Time of {'an' if recording.unit == 'epoch' else 'a'} {recording.unit}": _time(taken),
            "Skipped": f"{skipped} steps, for a number that is not finite" if skipped else "",
            "Weights": "" if not recording.weights.isnan().all() else "none: the method makes a direction without them",
            "Versions": f"isonomy {isonomy.__version__}, torch {torch.__version__}",
        }
    )


def _time(seconds: Tensor) -> str:
    if not len(seconds):
        return ""
    middle = float(seconds.median())
    return f"{number(1000 * middle)} ms, the median" if middle < 1 else f"{number(middle)} s, the median"


def _recent(values: Tensor) -> Tensor:
    """As ``LATELY`` says."""
    return (values[len(values) // 2 :] if len(values) > 3 else values).nanmedian(0).values


def number(value: float) -> str:
    """A number with three digits that count; a dash for one that is not there.

    Args:
        value: The number.
    """
    if math.isnan(value):
        return "–"
    rounded = float(f"{value:.3g}")
    plain = rounded == 0 or 1e-3 <= abs(rounded) < 1e6
    return (f"{rounded:g}" if plain else f"{rounded:.2e}").replace("-", MINUS)


def fixed(value: float, digits: int = 2) -> str:
    """A number with so many digits after the point; a dash for one that is not there.

    Args:
        value: The number.
        digits: How many.
    """
    rounded = round(value, digits) + 0.0  # of which -0 is 0
    return "–" if math.isnan(value) else f"{rounded:.{digits}f}".replace("-", MINUS)
