"""The page itself: HTML with everything inside."""

from __future__ import annotations

from html import escape

import torch

import isonomy
from isonomy.bench import looks
from isonomy.bench.cell import folder
from isonomy.bench.options import name_of
from isonomy.bench.progress import cells, heading, plural
from isonomy.bench.recipe import BEST_TEST, BEST_VAL, LAST, MEAN_LAST_10
from isonomy.bench.report import figures, gallery
from isonomy.bench.report.verdict import incomplete, verdict
from isonomy.bench.results import Results
from isonomy.diagnostics import shell
from isonomy.diagnostics.findings import summary

# Findings are of one training; the figures are of all seeds.
SEED = 0

# Which model the test metrics are of.
COUNTS = {
    LAST: "the last epoch's model counts",
    MEAN_LAST_10: "test metrics are means over the last ten epochs",
    BEST_VAL: "the model that is best on the validation split counts",
    BEST_TEST: "the model that is best on the test split itself counts, which flatters every method",
}


def render(results: Results) -> str:
    """The report as one self-contained HTML page.

    Args:
        results: Of a sweep.
    """
    sentences = verdict(results)
    name = name_of(results.plan.data)
    body = [
        f"<h1>{escape(name)}: which balancer is best?</h1>",
        f'<p class="soft">{escape(results.problem.summary)}</p>',
        f'<p class="lead">{escape(sentences[0])}</p>',
    ]
    if len(sentences) > 1:
        body.append(f"<p>{escape(' '.join(sentences[1:]))}</p>")
    if note := incomplete(results):
        body.append(f"<p><strong>{escape(note)}</strong></p>")
    body.append(_table(results))
    if results.ranked:
        bars = shell.figure(figures.deltas(results))
        body.append(f"<h2>Δp</h2>\n<p>Bars are means, whiskers one deviation.</p>\n{bars}")
    if results.rows:
        if name == "toy":
            body += [
                "<h2>Trajectories</h2>",
                "<p>Grey band: the Pareto set and front. Ring: start; dot: end. Thin lines: contours of the sum of the "
                "losses.</p>",
                f'<div class="grid pairs">{"".join(map(shell.figure, figures.landscapes(results)))}</div>',
            ]
        body.append(_said(results))
        for number, topic in enumerate(figures.curves(results)):
            body.append(f"<h2>{topic.heading}</h2>\n<p>{topic.sentence}</p>")
            if number == 0:
                body.append(figures.legend(results))
            panels = shell.grid(topic.panels)
            body.append(shell.folded(f"Show {plural(len(topic.panels), 'figure')}", panels) if topic.folded else panels)
        if bars := figures.times(results):
            body.append(f"<h2>Time of a step</h2>\n<p>All methods in turn, on one thread.</p>\n{shell.figure(bars)}")
        if bars := figures.invariances(results):
            body.append(
                "<h2>The unit of a loss</h2>\n<p>How much the errors of two small regressions change when the loss of "
                "one is multiplied by ten; nothing for a method that is blind to it. Those that need more than losses "
                f"are left out.</p>\n{shell.figure(bars)}"
            )
    body.append(gallery.render(results))
    body.append(_protocol(results))
    return shell.page(f"{name}: {sentences[0]}", body)


def _said(results: Results) -> str:
    """What the doctor says of every method."""
    parts = []
    for row in results.rows:
        seen = looks.recording(results.folder / folder(row.name) / str(SEED), lambda name: results.problem)
        said = "".join(f"<li>{shell.prose(sentence)}</li>" for sentence in summary(seen))
        parts.append(shell.folded(row.title, f"<ul>{said}</ul>", unfolded=row is results.rows[0]))
    return (
        f"<h2>What the gradients say</h2>\n<p>Of seed {SEED}, from what every epoch has recorded; "
        "<code>isonomy doctor</code> says the same.</p>\n" + "\n".join(parts)
    )


def _table(results: Results) -> str:
    measured = [f"{task.name}\n{heading(metric)}" for task in results.tasks for metric in task.metrics]
    rows = ([results.single] if results.single else []) + results.rows
    seeds = f"mean ± sample deviation over {results.plan.seeds} seeds" if results.plan.seeds > 1 else "one seed"
    return "<h2>Results</h2>\n" + shell.table(
        f"Test split, {seeds}. ↑ larger is better, ↓ smaller is better. Step time is relative to plain summing.",
        ["method", *measured, "Δp, %", "step time"],
        [cells(row, results) for row in rows],
        best=cells(results.ranked[0], results)[0] if results.ranked else None,
    )


def _protocol(results: Results) -> str:
    plan, recipe = results.plan, results.plan.recipe
    facts = {
        "Data": f"{plan.data}, version {plan.data_version}; tasks {', '.join(plan.tasks)}",
        "Network": ", ".join(filter(None, [plan.architecture, plan.backbone, plan.head])),
        "Initial weights": plan.weights or "random",
        "Single-task networks": "of the same architecture" if plan.baseline == "matched" else "one encoder and a head",
        "Budget": f"{plural(recipe.epochs, 'epoch')}; {COUNTS[recipe.select]}",
        "Optimiser": (
            f"{'AdamW' if recipe.optimizer == 'adamw' else 'Adam'}, learning rate {recipe.learning_rate:g}, "
            f"{recipe.schedule} schedule, weight decay {recipe.weight_decay:g}"
            + (f", gradients clipped to norm {recipe.clip:g}" if recipe.clip else "")
        ),
        "Gradients": f"measured at {plan.level}" if plan.level else "measured where each method's paper does",
        "Device": plan.device,
        "Samples": ", ".join(f"{count} {split}" for split, count in plan.samples.items()),
        "Scaled losses": ", ".join(f"{task} times {scale:g}" for task, scale in plan.scales.items()),
        "Mind": " ".join(results.problem.notes) if plan.samples else "",
        "Versions": f"isonomy {isonomy.__version__}, torch {torch.__version__}",
    }
    return (
        "<h2>How it was measured</h2>\n"
        "<p>Every method of a seed starts from the same weights and sees the same batches in the same order; so does "
        "each single-task network. Δp is the mean over tasks of the relative change against single-task training, "
        "positive when better; the single-task values are means over the seeds and held fixed.</p>\n"
        + shell.facts(facts)
    )
