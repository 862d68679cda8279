"""What reports are made of: pages that need nothing but themselves, on phone or desk, light or dark, read or heard."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

CSS = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1c2024; --soft: #5a626b; --line: #d5d9de; --best: #e8f4ee;
  --link: #0a5fb4; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --text: #e6e8ea; --soft: #a3abb4; --line: #363c43; --best: #1c2f27; --link: #79b8ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
a { color: var(--link); }
.skip { position: absolute; left: -100rem; padding: .5rem 1rem; background: var(--page); }
.skip:focus { left: 1rem; top: .5rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; }
h1, h2, h3, p, li, summary { overflow-wrap: anywhere; }
code { font-size: .9em; }
p { max-width: 46rem; margin: .5rem 0; }
ul { padding-left: 1.25rem; }
li { max-width: 46rem; }
.lead { font-size: 1.15rem; }
.soft { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
caption { text-align: left; white-space: normal; color: var(--soft); padding-bottom: .25rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: min(46rem, 100vw - 2rem); }
th, td { padding: .4rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; padding-left: 0; }
thead th { vertical-align: bottom; font-weight: 600; }
tbody th { font-weight: 400; white-space: normal; overflow-wrap: anywhere; min-width: 7rem; max-width: 14rem; }
tr.best { background: var(--best); }
tr.best > * { font-weight: 700; }
.findings { list-style: none; padding: 0; margin: 1rem 0; max-width: 46rem; }
.findings li { border-left: 4px solid var(--text); padding: .1rem 0 .1rem 1rem; margin: 0 0 1.5rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }
.topics { gap: 1.75rem 1rem; }
.topics section { display: flex; flex-direction: column; }
.topics p { color: var(--soft); font-size: .9rem; margin: 0 0 .5rem; }
.topics figure { margin-top: auto; }
.pairs { grid-template-columns: repeat(2, minmax(0, 22rem)); }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
details { margin: .5rem 0; }
summary { cursor: pointer; padding: .25rem 0; }
.gallery th, .gallery td { padding: .15rem; border: 0; vertical-align: middle; text-align: center; }
.gallery th:first-child { text-align: left; padding-right: .8rem; }
.gallery img { display: block; width: clamp(4.5rem, 13vw, 9rem); height: auto; image-rendering: pixelated; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: .75rem 0; }
.legend { font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; max-width: 46rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 34rem) {
  .pairs { grid-template-columns: 1fr; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; }
}
@media (prefers-contrast: more) { :root { --soft: var(--text); } }
"""

# Matplotlib's dashes, as SVG has them.
_DASHES = {"-": "none", "--": "7 4", "-.": "7 3 2 3", ":": "2 3"}


def page(title: str, body: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: Of the window; plain text.
        body: HTML, with one ``h1``.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">To the report</a>\n'
        '<main id="main" tabindex="-1">\n' + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def prose(text: str) -> str:
    """A sentence as HTML: what stands in backquotes is code, and a number keeps its percent sign.

    Args:
        text: Plain.
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)).replace(" %", "\u00a0%")


def figure(svg: str) -> str:
    """A figure.

    Args:
        svg: As ``style.vector`` makes it, which says in words what it shows.
    """
    return f"<figure>{svg}</figure>"


def grid(figures: Iterable[str]) -> str:
    """Figures side by side, as many as there is room for.

    Args:
        figures: As ``figure`` takes them.
    """
    return f'<div class="grid">{"".join(map(figure, figures))}</div>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], best: str | None = None) -> str:
    """A table, which scrolls by itself where it is wider than the page.

    Args:
        caption: What it shows; plain text, as everything in it.
        head: Headings of the columns; a newline breaks one.
        rows: Cells, of which the first is the row's heading.
        best: Heading of the row that stands out, if one does.
    """
    columns = "".join(f'<th scope="col">{escape(name).replace(chr(10), "<br>")}</th>' for name in head)
    lines = "\n".join(_row(row, row[0] == best) for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">\n<table>\n'
        f"<caption><span>{escape(caption)}</span></caption>\n<thead><tr>{columns}</tr></thead>\n"
        f"<tbody>\n{lines}\n</tbody>\n</table>\n</div>"
    )


def _row(cells: Sequence[str], best: bool) -> str:
    name, *values = map(escape, cells)
    opening = '<tr class="best">' if best else "<tr>"
    return f'{opening}<th scope="row">{name}</th>{"".join(f"<td>{value}</td>" for value in values)}</tr>'


def legend(looks: Mapping[str, Mapping[str, str]], others: str | None = None) -> str:
    """One legend for many figures.

    Args:
        looks: Colour and dash of every line, by its name.
        others: What grey bands stand for, if there are any.
    """
    lines = [
        f'<line x2="28" y1="5" y2="5" stroke-width="3" stroke="{look["color"]}" '
        f'stroke-dasharray="{_DASHES[look["linestyle"]]}"/>'
        for look in looks.values()
    ]
    marks = dict(zip(looks, lines, strict=True))
    if others is not None:
        marks[others] = '<rect width="28" height="10" fill="currentColor" opacity="0.25"/>'
    entries = [
        f'<li><svg width="28" height="10" aria-hidden="true">{mark}</svg> {escape(name)}</li>'
        for name, mark in marks.items()
    ]
    return f'<ul class="legend">{"".join(entries)}</ul>'


def facts(entries: Mapping[str, str]) -> str:
    """Names and what they are, as a list; those without a value are left out.

    Args:
        entries: Plain text.
    """
    inner = "".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in entries.items() if fact)
    return f"<dl>{inner}</dl>"


def folded(summary: str, inner: str, unfolded: bool = False) -> str:
    """A part of a page that opens when it is asked for.

    Args:
        summary: What stays to be seen; plain text.
        inner: HTML.
        unfolded: Whether it is open to begin with.
    """
    return f"<details{' open' if unfolded else ''}><summary>{escape(summary)}</summary>\n{inner}\n</details>"
