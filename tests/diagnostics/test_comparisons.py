"""Figures that compare methods."""

import math

import matplotlib as mpl
import pytest

from isonomy.diagnostics import comparisons

mpl.use("agg")
from matplotlib import pyplot as plt


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    figure.canvas.draw()
    plt.close(figure)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_bars_have_their_numbers_and_the_first_is_on_top(ax):
    comparisons.delta_bars({"A": (2.5, 0.5), "B": (-1.25, None)}, ax=ax, colors={"A": "#ff0000"})
    assert [bar.get_width() for bar in ax.patches] == [2.5, -1.25]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "B"]
    assert texts(ax) == ["+2.5", "−1.2"]
    assert ax.yaxis_inverted()
    assert ax.patches[0].get_facecolor() == (1, 0, 0, 1)
    low, high = ax.get_xlim()
    assert (low < -1.25, high > 3.0) == (True, True)


def test_step_times_are_measured_from_plain_summing(ax):
    comparisons.time_bars({"EW": 1.0, "MGDA": 2.345}, ax=ax)
    assert texts(ax) == ["1.00", "2.35"]
    assert [line.get_xdata()[0] for line in ax.lines] == [1]


def test_invariance_is_in_percent(ax):
    comparisons.invariance_bars({"EW": 1.204, "DB-MTL": 1e-9}, ax=ax)
    assert texts(ax) == ["120", "0"]
    assert "multiplied by ten" in ax.get_xlabel()


def test_a_long_line_keeps_its_peaks_and_stays_short(ax):
    values = [math.sin(k) for k in range(10_000)]
    values[4321], values[7777] = 50.0, -50.0
    comparisons.curves({"a": values}, ax=ax)
    x, y = ax.lines[0].get_data()
    assert len(x) <= comparisons.POINTS
    assert list(x) == sorted(x)
    assert dict(zip(x, y, strict=True))[4322] == 50.0
    assert dict(zip(x, y, strict=True))[7778] == -50.0


def test_a_long_gap_stays_one(ax):
    values = [1.0] * 1000 + [math.nan] * 1000 + [1.0] * 1000
    comparisons.curves({"a": values}, ax=ax)
    x, y = ax.lines[0].get_data()
    inside = [value for place, value in zip(x, y, strict=True) if 1030 < place < 1970]
    assert inside
    assert all(map(math.isnan, inside))


def test_epochs_count_from_one_and_a_reference_is_dotted(ax):
    comparisons.curves({"a": [3.0, 2.0, 1.0]}, ax=ax, reference=("alone", 1.5), log=True)
    line, dotted = ax.lines
    assert list(line.get_xdata()) == [1, 2, 3]
    assert (dotted.get_linestyle(), dotted.get_ydata()[0]) == (":", 1.5)
    assert ax.get_yscale() == "log"


@pytest.mark.parametrize("values", [[], [0.0, math.nan], [1e-12, -3.0], [1e9] * 5])
def test_a_scale_both_ways_takes_anything(ax, values):
    ax.plot(values)
    comparisons.symlog(ax, values)
    assert ax.get_yscale() == "symlog"
