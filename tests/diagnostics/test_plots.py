"""Figures of a recording: what is drawn is what was recorded, and stays readable."""

import math

import matplotlib as mpl
import pytest
import torch

from isonomy.diagnostics import plots
from isonomy.diagnostics.comparisons import ink
from tests.diagnostics.made import made

mpl.use("agg")
from matplotlib import pyplot as plt

OF_TASKS = {
    plots.losses: lambda seen: seen.losses,
    plots.weights: lambda seen: seen.loss_weights * seen.weights,
    plots.norms: lambda seen: seen.raw_norms,
    plots.shares: lambda seen: 100 * seen.shares,
    plots.alignment: lambda seen: seen.alignment,
}
OF_PAIRS = {plots.cosines: lambda seen: seen.cosines, plots.dots: lambda seen: seen.dots}


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    figure.canvas.draw()  # whatever was drawn can be shown
    plt.close(figure)


def named(ax):
    return [line for line in ax.lines if not line.get_label().startswith("_child")]


@pytest.mark.parametrize("draw", OF_TASKS, ids=lambda draw: draw.__name__)
def test_a_line_a_task(draw, ax):
    seen = made(scales=[1.0, 5.0, 0.2], loss_weights=torch.full((20, 3), 2.0, dtype=torch.float64))
    draw(seen, ax=ax)
    lines = named(ax)
    assert [line.get_label() for line in lines] == list(seen.tasks)
    for line, values in zip(lines, OF_TASKS[draw](seen).T, strict=True):
        assert list(line.get_xdata()) == seen.steps.tolist()
        assert list(line.get_ydata()) == values.tolist()
    assert ax.get_xlabel() == "step"
    assert ax.get_ylabel()
    assert [text.get_text().strip() for text in ax.get_legend().get_texts()] == list(seen.tasks)


@pytest.mark.parametrize("draw", OF_PAIRS, ids=lambda draw: draw.__name__)
def test_a_line_a_pair(draw, ax):
    seen = made(scales=[1.0, 5.0, 0.2])
    draw(seen, ax=ax)
    values = OF_PAIRS[draw](seen)
    pairs = {"seg, depth": (0, 1), "seg, normal": (0, 2), "depth, normal": (1, 2)}
    assert {line.get_label(): list(line.get_ydata()) for line in named(ax)} == {
        name: values[:, i, j].tolist() for name, (i, j) in pairs.items()
    }


def test_norms_are_those_before_balancing(ax):
    seen = made(loss_weights=torch.full((20, 3), 4.0, dtype=torch.float64))
    plots.norms(seen, ax=ax)
    assert list(named(ax)[0].get_ydata()) == (seen.norms[:, 0] / 4).tolist()


def test_conflicts_are_a_percentage_of_pairs(ax):
    seen = made(looks=2, cosines=torch.tensor([[[1, -0.1, 0.2], [-0.1, 1, 0.3], [0.2, 0.3, 1]]] * 2).double())
    plots.conflicts(seen, ax=ax)
    assert named(ax)[0].get_ydata() == pytest.approx([100 / 3, 100 / 3])


def test_no_two_lines_look_alike(ax):
    plots.losses(made([f"t{k}" for k in range(8)]), ax=ax)
    assert len({(line.get_color(), line.get_linestyle()) for line in named(ax)}) == 8
    assert len({line.get_linestyle() for line in named(ax)}) == 4


def test_of_forty_tasks_the_longest_and_the_shortest_are_drawn_the_others_are_a_band(ax):
    names = [f"t{k}" for k in range(40)]
    seen = made(names, scales=[1.3**k for k in range(40)])
    plots.norms(seen, ax=ax)
    assert [line.get_label() for line in named(ax)] == [*names[:4], *names[-4:]]
    (band,) = ax.collections
    assert band.get_label() == "the other 32"
    heights = band.get_paths()[0].vertices[:, 1]
    others = seen.raw_norms[:, 4:36]
    assert heights.min() == pytest.approx(float(others.min()))
    assert heights.max() == pytest.approx(float(others.max()))
    assert ax.get_legend().get_texts()[-1].get_text() == "the other 32"


def test_of_many_pairs_the_lowest_and_the_highest_cosines_are_drawn(ax):
    seen = made([f"t{k}" for k in range(6)])
    middle = seen.cosines.nanmedian(0).values
    pairs = sorted((float(middle[i, j]), f"t{i}, t{j}") for i in range(6) for j in range(i + 1, 6))
    plots.cosines(seen, ax=ax)
    assert {line.get_label() for line in named(ax)} == {name for _, name in pairs[:4] + pairs[-4:]}
    # The same pairs in the other figure, in the same colours.
    plots.dots(seen, ax=(other := plt.figure().subplots()))
    assert [(a.get_label(), a.get_color()) for a in named(ax)] == [(b.get_label(), b.get_color()) for b in named(other)]


def test_tasks_keep_their_colours_in_all_figures(ax):
    seen = made([f"t{k}" for k in range(12)], scales=[1.5**k for k in range(12)])
    found = []
    for draw in OF_TASKS:
        ax.clear()
        draw(seen, ax=ax)
        found.append([(line.get_label(), line.get_color(), line.get_linestyle()) for line in named(ax)])
    assert all(each == found[0] for each in found)


def test_a_method_without_weights_is_ranked_by_its_norms():
    names = [f"t{k}" for k in range(12)]
    nothing = torch.full((20, 12), math.nan, dtype=torch.float64)
    seen = made(names, scales=[1.5**k for k in range(12)], weights=nothing)
    assert list(plots.task_looks(seen)) == [*names[:4], *names[-4:]]


def test_an_absent_task_is_a_gap_and_a_lonely_look_a_dot(ax):
    losses = torch.rand(30, 3, dtype=torch.float64) + 1
    losses[5:10, 1] = math.nan
    losses[1::2, 2] = math.nan
    plots.losses(made(looks=30, losses=losses), ax=ax)
    whole, gap, dots = named(ax)
    assert [math.isnan(value) for value in gap.get_ydata()] == [5 <= k < 10 for k in range(30)]
    assert (whole.get_marker(), gap.get_marker(), dots.get_marker()) == ("", "", "o")


def test_what_is_not_finite_or_not_positive_does_not_spoil_the_scale(ax):
    norms = torch.rand(30, 3, dtype=torch.float64) + 1
    norms[3, 0], norms[4, 1] = math.inf, 0.0
    plots.norms(made(looks=30, norms=norms), ax=ax)
    low, high = ax.get_ylim()
    assert (low > 0.5, high < 4) == (True, True)


def test_losses_that_are_not_positive_are_on_a_linear_scale(ax):
    plots.losses(made(losses=-torch.ones(20, 3, dtype=torch.float64)), ax=ax)
    assert ax.get_yscale() == "linear"
    assert list(named(ax)[0].get_ydata()) == [-1.0] * 20


def test_dot_products_are_readable_on_both_sides_of_zero(ax):
    seen = made(scales=[1.0, 100.0, 0.01])
    plots.dots(seen, ax=ax)
    assert ax.get_yscale() == "symlog"
    ticks = ax.get_yticks()
    assert 0 in ticks
    assert (min(ticks) < 0, max(ticks) > 0) == (True, True)
    assert len(ticks) < 14


def test_names_are_shown_as_they_are(ax):
    plots.losses(made(["a$x^2$", "_b", "c"]), ax=ax)
    ax.figure.canvas.draw()
    texts = ax.get_legend().get_texts()
    assert [text.get_text().strip() for text in texts] == ["a$x^2$", "_b", "c"]
    assert not any(text.get_parse_math() for text in texts)


def test_a_single_look_is_a_dot(ax):
    plots.alignment(made(looks=1), ax=ax)
    assert [line.get_marker() for line in named(ax)] == ["o"] * 3


def test_the_ink_is_the_users(ax):
    with plt.style.context("dark_background"):
        plots.alignment(made(), ax=ax)
        assert ink() == "white"
    assert [line.get_color() for line in ax.lines if line not in named(ax)] == ["white"]
