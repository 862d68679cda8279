"""The page itself: HTML with everything inside."""

from __future__ import annotations

from html import escape

import torch

import isonomy
from isonomy.bench.options import name_of
from isonomy.bench.progress import cells, heading, plural
from isonomy.bench.recipe import BEST_TEST, BEST_VAL, LAST, MEAN_LAST_10
from isonomy.bench.report import figures, gallery
from isonomy.bench.report.verdict import incomplete, verdict
from isonomy.bench.results import Results, Row

CSS = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1c2024; --soft: #5a626b; --line: #d5d9de; --best: #e8f4ee; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --text: #e6e8ea; --soft: #a3abb4; --line: #363c43; --best: #1c2f27; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
.lead { font-size: 1.15rem; }
.soft { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .4rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; }
thead th { vertical-align: bottom; font-weight: 600; }
tbody th { font-weight: 400; }
tr.best { background: var(--best); }
tr.best > * { font-weight: 700; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }
.pairs { grid-template-columns: repeat(2, minmax(0, 22rem)); }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
.gallery th, .gallery td { padding: .15rem; border: 0; vertical-align: middle; text-align: center; }
.gallery th:first-child { text-align: left; padding-right: .8rem; }
.gallery img { display: block; width: clamp(4.5rem, 13vw, 9rem); height: auto; image-rendering: pixelated; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: .75rem 0; }
.legend { font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; max-width: 46rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (prefers-contrast: more) { :root { --soft: var(--text); } }
"""


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
        body.append(f"<h2>Δp</h2>\n<p>Bars are means, whiskers one deviation.</p>\n{_figure(figures.deltas(results))}")
    if results.rows:
        if name == "toy":
            body += [
                "<h2>Trajectories</h2>",
                "<p>Grey band: the Pareto set and front. Ring: start; dot: end. Thin lines: contours of the sum of the "
                "losses.</p>",
                f'<div class="grid pairs">{"".join(map(_figure, figures.landscapes(results)))}</div>',
            ]
        for number, (heading, sentence, panels) in enumerate(figures.curves(results)):
            body.append(f"<h2>{heading}</h2>\n<p>{sentence}</p>")
            if number == 0:
                body.append(figures.legend(results))
            body.append(f'<div class="grid">{"".join(map(_figure, panels))}</div>')
    body.append(gallery.render(results))
    body.append(_protocol(results))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}: {escape(sentences[0])}</title>\n"
        f"<style>{CSS}</style>\n</head>\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>"


def _table(results: Results) -> str:
    headings = "".join(
        f'<th scope="col">{escape(task.name)}<br>{escape(heading(metric))}</th>'
        for task in results.tasks
        for metric in task.metrics
    )
    best = results.ranked[0] if results.ranked else None
    rows = ([results.single] if results.single else []) + results.rows
    lines = "\n".join(_row(row, results, row is best) for row in rows)
    seeds = f"mean ± sample deviation over {results.plan.seeds} seeds" if results.plan.seeds > 1 else "one seed"
    return (
        f'<h2>Results</h2>\n<p id="about" class="soft">Test split, {seeds}. ↑ larger is better, ↓ smaller is better. '
        "Step time is relative to plain summing.</p>\n"
        '<div class="scroll" tabindex="0" role="region" aria-label="Results">\n<table aria-describedby="about">\n'
        f'<thead><tr><th scope="col">method</th>{headings}<th scope="col">Δp, %</th>'
        '<th scope="col">step time</th></tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody>\n</table>\n</div>"
    )


def _row(row: Row, results: Results, best: bool) -> str:
    name, *values = map(escape, cells(row, results))
    opening = '<tr class="best">' if best else "<tr>"
    return f'{opening}<th scope="row">{name}</th>{"".join(f"<td>{value}</td>" for value in values)}</tr>'


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
    entries = "".join(f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items() if fact)
    return (
        "<h2>How it was measured</h2>\n"
        "<p>Every method of a seed starts from the same weights and sees the same batches in the same order; so does "
        "each single-task network. Δp is the mean over tasks of the relative change against single-task training, "
        "positive when better; the single-task values are means over the seeds and held fixed.</p>\n"
        f"<dl>{entries}</dl>"
    )
