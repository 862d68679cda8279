"""Three gradients, and the aggregate that gradient balancers make of them: Figure 1 of the IMTL paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

import isonomy
from isonomy.bench.experiments.figures import sheet
from isonomy.bench.experiments.measured import Measured
from isonomy.bench.report.picture import INK
from isonomy.diagnostics import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of three tasks: of unequal length, two of them in conflict.
GRADIENTS = ((1.6, -0.2, 0.1), (-0.2, 0.9, 0.2), (-0.1, 0.1, 0.6))
METHODS = {"GradNorm (gamma = 0)": "gradnorm", "MGDA": "mgda_free", "PCGrad": "pcgrad", "IMTL-G": "imtl_g"}


def aggregates() -> dict[str, Tensor]:
    """Of every method the aggregated gradient, shape (3,); GradNorm's is the one that it learns to make."""
    gradients = torch.tensor(GRADIENTS, dtype=torch.float64)
    found = {}
    for title, name in METHODS.items():
        if name == "gradnorm":
            weights = 1 / gradients.norm(dim=1)
            found[title] = (len(gradients) * weights / weights.sum()) @ gradients
        else:
            found[title] = isonomy.build(name, tasks=len(gradients)).aggregate(gradients)
    return found


def projections(aggregate: Tensor) -> Tensor:
    """How long an aggregated gradient is along each task's own, shape (3,).

    Args:
        aggregate: Shape (3,).
    """
    gradients = torch.tensor(GRADIENTS, dtype=torch.float64)
    lengths: Tensor = (gradients / gradients.norm(dim=1, keepdim=True)) @ aggregate
    return lengths


def geometry(found: Measured) -> Figure:
    """A panel for every method: the three gradients, their plane, and in red the aggregate.

    Args:
        found: An experiment without sweeps.
    """
    figure, (axes,) = sheet.grid(1, len(METHODS), (3.2, 3.2), subplot_kw={"projection": "3d", "computed_zorder": False})
    for ax, (title, aggregate) in zip(axes, aggregates().items(), strict=True):
        corners = [*zip(*GRADIENTS, strict=True)]
        ax.plot_trisurf(*corners, color=style.NEUTRAL, alpha=0.25, zorder=0)  # type: ignore[attr-defined]
        for number, gradient in enumerate(GRADIENTS, start=1):
            ax.quiver(0, 0, 0, *gradient, color=INK, linewidth=1.2, arrow_length_ratio=0.08)
            ax.text(*(1.15 * part for part in gradient), f" g{number}")  # type: ignore[call-arg, arg-type]
        ax.quiver(0, 0, 0, *aggregate.tolist(), color=style.PALETTE[0], linewidth=2, arrow_length_ratio=0.08)
        lengths = ", ".join(f"{length:.2f}" for length in projections(aggregate).tolist())
        ax.set_title(f"{title}\nalong g1, g2, g3: {lengths.replace('-', sheet.MINUS)}")
        ax.set(xlim=(0, 1.9), ylim=(0, 1.2), zlim=(0, 1), xticks=[], yticks=[], zticks=[])
        ax.view_init(elev=28, azim=40)  # type: ignore[attr-defined]
    return figure
