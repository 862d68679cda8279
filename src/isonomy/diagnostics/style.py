"""The house style of all figures: colours, dashes, and figures as elements of a page. Needs ``isonomy[plot]``.

The colours tell lines apart for colour-blind readers, on light and on dark paper; ``vector`` turns a figure into an SVG
that takes its ink from the page around it.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Mid-tones of the Okabe-Ito order: at least 3 : 1 against white and against a dark page.
PALETTE = ("#d55e00", "#0a8fd4", "#0f9d6d", "#b56bb0", "#b08200", "#6b7fe0", "#c0506a", "#5d9c2f")
DASHES = ("-", "--", "-.", ":")
NEUTRAL = "#85898f"
# Stands for the page's own text colour until ``vector`` replaces it; a colour that nobody would choose.
INK = "#010203"

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "isonomy",
    "text.parse_math": False,  # a task may be called "$"
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK
    ),
}


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel in the house style, for drawing inside the block.

    Args:
        width: In inches.
        height: In inches.
    """
    import matplotlib as mpl  # noqa: PLC0415 - only those who draw wait for it
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def vector(figure: Figure, description: str) -> str:
    """A figure as an ``<svg>`` element for a page: text stays text and the ink is the page's text colour.

    Args:
        figure: Made by ``canvas``, still inside its block.
        description: What it shows, for those who do not see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "system-ui, sans-serif", text)
    # Only names that are referred to stay, and become this figure's own: one that another figure has, too, is not found
    # while that one is folded away.
    referred = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    own = f"f{hashlib.sha256((description + text).encode()).hexdigest()[:8]}"
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{own}-{found[1]}"' if found[1] in referred else "", text)
    text = re.sub(r'(url\(|href=")#', rf"\g<1>#{own}-", text)
    # A hundredth of a point is finer than any screen.
    text = re.sub(r' (?:d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), text)
    width = re.search(r'<svg[^>]*\bwidth="([\d.]+)pt"', text)
    opening = f'<svg role="img" aria-label="{html.escape(description, quote=True)}"'
    if width is not None:
        opening += f' style="max-width:{float(width[1]) * 4 / 3:.0f}px"'
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", opening, 1)


def looks(names: Sequence[str], neutral: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """A colour and a dash for every name, to be used in all figures; no two alike up to 32.

    Args:
        names: Of methods, tasks or pairs of tasks.
        neutral: Those that are references and stay grey.
    """
    coloured = [name for name in names if name not in neutral]
    styles = {
        name: {
            "color": PALETTE[i % len(PALETTE)],
            "linestyle": DASHES[(i + i // len(PALETTE)) % len(DASHES)],
        }
        for i, name in enumerate(coloured)
    }
    return styles | {name: {"color": NEUTRAL, "linestyle": "-"} for name in neutral}
