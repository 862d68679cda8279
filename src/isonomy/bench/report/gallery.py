"""Pictures of predictions: what was seen, what was to be predicted, and what each method makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from isonomy.bench import pictures
from isonomy.bench.cell import single
from isonomy.bench.results import Results

# Predictions are shown of one seed; the numbers tell of all of them.
SEED = 0


def render(results: Results) -> str:
    """The gallery as HTML; empty where no run has pictures.

    Args:
        results: Of a sweep.
    """
    tasks = [task.name for task in results.tasks]
    runs = {row.title: pictures.load(results.folder / row.name / str(SEED)) for row in results.rows}
    alone: dict[str, str] = {}
    for task in tasks:
        alone |= pictures.load(results.folder / single(task) / str(SEED))
    every = {"Single-task": alone, **runs}
    known = {name: address for found in every.values() for name, address in found.items()}
    samples = sorted({name.partition("-")[0] for name in known})
    if not samples:
        return ""
    return (
        "<h2>Predictions</h2>\n"
        f"<p>Of test images, seed {SEED}, after the last epoch. A single-task network predicts one column each.</p>\n"
        + "\n".join(_sample(sample, tasks, known, every) for sample in samples)
    )


def _sample(sample: str, tasks: list[str], known: Mapping[str, str], every: Mapping[str, Mapping[str, str]]) -> str:
    head = "".join(f'<th scope="col">{escape(task)}</th>' for task in tasks)
    image = _image(known.get(f"{sample}-image"), f"test image {sample}")
    truth = "".join(f"<td>{_image(known.get(f'{sample}-{task}-truth'), f'true {task}')}</td>" for task in tasks)
    rows = [f'<tr><th scope="row">truth</th><td>{image}</td>{truth}</tr>']
    for title, found in every.items():
        cells = [_image(found.get(f"{sample}-{task}"), f"{task} as predicted by {title}") for task in tasks]
        if any(cells):
            inner = "".join(f"<td>{cell}</td>" for cell in cells)
            rows.append(f'<tr><th scope="row">{escape(title)}</th><td></td>{inner}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Predictions of test image {sample}">\n'
        f'<table class="gallery">\n<thead><tr><th></th><th scope="col">image</th>{head}</tr></thead>\n'
        "<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>\n</div>"
    )


def _image(address: str | None, alternative: str) -> str:
    return f'<img src="{address}" alt="{escape(alternative)}">' if address else ""
