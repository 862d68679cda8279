"""Tables of what is published, what is measured, and the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from isonomy.bench import records
from isonomy.bench.delta import Spread
from isonomy.bench.experiments import published
from isonomy.bench.experiments.measured import Measured
from isonomy.bench.experiments.published import OVERALL, Measure, Number
from isonomy.bench.experiments.schema import Panel
from isonomy.bench.progress import number, signed

CSV, MARKDOWN, LATEX = "comparison.csv", "comparison.md", "comparison.tex"
COLUMNS = (
    "experiment", "panel", "dataset", "architecture", "method", "metric", "published", "published_std", "measured",
    "measured_std", "seeds", "difference",
)  # fmt: skip
SINGLE, MISSING = "single-task", "–"
BAR, ESCAPED = "|", "\\|"
# Characters of a cell of three numbers and of a method's name, about.
CELL, NAME = 30, 24
# Fewer methods have no order to speak of.
LEAST = 3


@dataclass(frozen=True)
class Entry:
    """A method's number.

    Attributes:
        published: None where the paper prints none.
        measured: None where nothing is finished.
        comparable: Whether their difference says anything.
    """

    published: Number | None
    measured: Spread | None
    comparable: bool

    @property
    def difference(self) -> float | None:
        """Measured less published."""
        if self.published is None or self.measured is None or not self.comparable:
            return None
        return self.measured.mean - float(self.published.value)


@dataclass
class Comparison:
    """A panel's table.

    Attributes:
        panel: Which one.
        title: For people.
        methods: As the paper prints them, in its order.
        metrics: Likewise.
        entries: By method and metric; what is in neither column has none.
        lines: What else there is to say.
    """

    panel: Panel
    title: str
    methods: list[str]
    metrics: list[str]
    entries: dict[tuple[str, str], Entry]
    lines: list[str] = field(default_factory=list)


def compare(found: Measured) -> list[Comparison]:
    """A table for every panel that has begun.

    Args:
        found: The experiment's sweeps.
    """
    return [_comparison(found, panel) for panel in found.experiment.panels if panel.name in found.sweeps]


def _comparison(found: Measured, panel: Panel) -> Comparison:
    experiment, sweep = found.experiment, found.sweeps[panel.name]
    alone = experiment.single or SINGLE
    names: dict[str, str | None] = {alone: None, **panel.methods}
    printed = published.of_panel(experiment, panel)
    overall = next((each.metric for each in printed if each.metric in OVERALL), OVERALL[0])
    own = {f"{task.name}_{metric.name}": (task.name, metric.name) for task in sweep.tasks for metric in task.metrics}
    if printed and not experiment.mini:
        wanted = {each.metric: published.measure(each.metric, panel, sweep.problem) for each in printed}
    else:
        wanted = {name: Measure("metric", *pair) for name, pair in own.items()} | {overall: Measure("overall")}
    beside = {
        (each.method, each.metric): each
        for each in printed
        if (not experiment.mini or each.metric == overall) and each.method not in panel.unmeasured
    }
    table = Comparison(panel, f"{experiment.name}, {panel.name}: {sweep.plan.data}", list(names), list(wanted), {})
    for method, ours in names.items():
        for metric, measure in wanted.items():
            entry = Entry(
                beside.get((method, metric)), found.spread(panel, ours, measure), comparable=not experiment.mini
            )
            if entry.published or entry.measured:
                table.entries[method, metric] = entry
    table.lines = [f"{method} is left out: {why}." for method, why in panel.unmeasured.items()]
    if experiment.mini:
        table.lines += _order(table, overall)
    return table


def _order(table: Comparison, overall: str) -> list[str]:
    """How alike the orders of the methods are, in a sentence."""
    from scipy.stats import spearmanr  # type: ignore[import-untyped] # noqa: PLC0415 - a second that only this has to spend

    entries = [table.entries.get((method, overall)) for method in table.panel.methods]
    pairs = [
        (float(entry.published.value), entry.measured.mean)
        for entry in entries
        if entry and entry.published and entry.measured
    ]
    # Without two different values there is no order.
    if len(pairs) < LEAST or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return []
    rank = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return [f"Spearman's rank correlation of {overall} over {len(pairs)} methods: {signed(rank, 2)}."]


def cell(entry: Entry | None) -> list[str]:
    """An entry as text: published, measured and their difference.

    Args:
        entry: None for an empty one.
    """
    if entry is None:
        return [MISSING, MISSING, MISSING]
    paper, ours, gap = entry.published, entry.measured, entry.difference
    digits = paper.decimals if paper else None if ours is None else len(number(ours.mean).partition(".")[2])
    first = MISSING if paper is None else paper.value.replace("-", "−") + (f" ± {paper.std}" if paper.std else "")
    second = MISSING
    if ours is not None:
        deviation = "" if ours.std is None else f" ± {ours.std:.{digits}f}"
        second = f"{ours.mean:.{digits}f}".replace("-", "−") + deviation
    return [first, second, MISSING if gap is None else signed(gap, digits or 0)]


def _line(table: Comparison, method: str, metrics: Sequence[str]) -> list[str]:
    return [method, *(" | ".join(cell(table.entries.get((method, metric)))) for metric in metrics)]


def drawn(table: Comparison, width: int) -> list[Table]:
    """A panel's table for a terminal, in as many parts as its metrics need.

    Args:
        table: The panel's.
        width: Of the terminal.
    """
    each = max((width - NAME) // CELL, 1)
    parts = []
    for first in range(0, len(table.metrics), each):
        metrics = table.metrics[first : first + each]
        part = Table(title=f"{table.title}: published | measured | difference")
        part.add_column("method", no_wrap=True)
        for metric in metrics:
            part.add_column(metric, justify="right", no_wrap=True)
        for method in table.methods:
            part.add_row(*_line(table, method, metrics))
        parts.append(part)
    return parts


def write(tables: Sequence[Comparison], found: Measured, lines: Sequence[str], out: Path) -> None:
    """Writes ``comparison.csv``, ``comparison.md`` and ``comparison.tex``.

    Args:
        tables: Of the panels.
        found: The experiment's sweeps.
        lines: What holds for the whole experiment.
        out: Its folder.
    """
    rows = [
        _row(table, method, metric, entry, found.experiment.name)
        for table in tables
        for (method, metric), entry in table.entries.items()
    ]
    records.write_csv(out / CSV, COLUMNS, rows)
    head = [f"# {found.experiment.name}", found.experiment.what + ".", *lines]
    records.write_text(out / MARKDOWN, "\n\n".join([*head, *map(_markdown, tables)]) + "\n")
    records.write_text(out / LATEX, "\n".join(map(_latex, tables)))


def _row(table: Comparison, method: str, metric: str, entry: Entry, experiment: str) -> list[object]:
    where, paper, ours = table.panel.published, entry.published, entry.measured
    return [
        experiment,
        table.panel.name,
        where.dataset if where else "",
        where.architecture if where else "",
        method,
        metric,
        paper.value if paper else "",
        paper.std if paper else "",
        "" if ours is None else repr(ours.mean),
        "" if ours is None or ours.std is None else repr(ours.std),
        "" if ours is None else ours.count,
        "" if entry.difference is None else repr(entry.difference),
    ]


def _markdown(table: Comparison) -> str:
    lines = [["method", *table.metrics], ["---", *["---:"] * len(table.metrics)]]
    lines += [_line(table, method, table.metrics) for method in table.methods]
    body = "\n".join(f"| {' | '.join(text.replace(BAR, ESCAPED) for text in line)} |" for line in lines)
    return "\n\n".join([f"## {table.title}", "Published | measured | difference.", body, *table.lines])


SPECIAL = {**{sign: f"\\{sign}" for sign in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {"\\": r"\textbackslash{}", "±": r"$\pm$", "−": "$-$", "–": "--", "|": r"$\mid$", "√": r"$\surd$"}


def escape(text: str) -> str:
    """Text for LaTeX.

    Args:
        text: With characters that LaTeX takes for its own.
    """
    return "".join(SPECIAL.get(sign, sign) for sign in text)


def _latex(table: Comparison) -> str:
    lines = [["method", *table.metrics], *(_line(table, method, table.metrics) for method in table.methods)]
    head, *body = [" & ".join(map(escape, line)) + r" \\" for line in lines]
    return "\n".join(
        [
            f"% {table.title}; needs the package booktabs",
            rf"\begin{{tabular}}{{l{'r' * len(table.metrics)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(f"% {line}" for line in table.lines),
            "",
        ]
    )
