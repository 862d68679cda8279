import csv

import pytest

from isonomy.bench import records
from isonomy.bench.delta import Spread
from isonomy.bench.experiments import measured, tables
from isonomy.bench.experiments.tables import Entry
from tests.bench.experiments.papers import METHODS, number, paper, printed
from tests.bench.experiments.test_measured import begun, finished, values
from tests.bench.tiny import load

BETTER = {"ew": 1.2, "fixed:weights=1x2x0.5": 0.8, "avgnorm": 0.9}


@pytest.fixture
def found(tmp_path, monkeypatch):
    """The plain panel with one seed; errors of 1 alone, and of these with a method."""
    printed(monkeypatch)
    return lambda **changes: _found(tmp_path, **changes)


def _found(out, **changes):
    from isonomy.bench.cell import folder

    experiment = paper(seeds=1, **changes)
    place = begun(experiment, experiment.panels[0], out)
    for task in "abc":
        finished(place, f"single_task-{task}/0", {task: {"mse": 1.0, "score": 1.0}})
    for ours, error in BETTER.items():
        finished(place, f"{folder(ours)}/0", values(error, 1.0))
    return measured.collect(experiment, out, load)


def test_published_measured_and_their_difference(found):
    (table,) = tables.compare(found())
    assert table.methods == ["STL", *METHODS]
    assert table.metrics == ["a_mse", "Delta_p", "b_lambda", "time_s_per_iter"]
    entry = table.entries["EW", "a_mse"]
    assert entry.difference == pytest.approx(1.2 - 0.451)
    assert tables.cell(entry) == ["0.451", "1.200", "+0.749"]
    assert tables.cell(table.entries["EW", "Delta_p"]) == ["−1.5 ± 0.2", "−10.0", "−8.5"]
    assert tables.cell(table.entries["Half & half", "a_mse"]) == ["–", "0.8000", "–"]  # the paper prints none
    assert tables.cell(table.entries.get(("STL", "b_lambda"))) == ["–", "–", "–"]
    assert tables.cell(table.entries["EW", "time_s_per_iter"]) == ["1.201", "–", "–"]  # nothing was timed
    assert table.lines == []


def test_deviations_are_printed_where_there_are_some():
    entry = Entry(number("EW", "a_mse", "53.50", "0.31"), Spread.of([52.0, 54.0]), comparable=True)
    assert tables.cell(entry) == ["53.50 ± 0.31", "53.00 ± 1.41", "−0.50"]


def test_a_miniature_has_the_published_order_beside_its_own(found):
    (table,) = tables.compare(found(name="paper/table1@mini"))
    assert table.metrics == ["a_mse", "a_score", "b_mse", "b_score", "c_mse", "c_score", "Delta_p"]
    assert tables.cell(table.entries["EW", "a_mse"]) == ["–", "1.200", "–"]
    assert tables.cell(table.entries["EW", "Delta_p"]) == ["−1.5 ± 0.2", "−10.0", "–"]
    # Published: -1.5, 2.5, 1.0; measured: -10, 10, 5.
    assert table.lines == ["Spearman's rank correlation of Delta_p over 3 methods: +1.00."]


def test_an_opposite_order_is_told(found, monkeypatch):
    printed(
        monkeypatch, [number(method, "Delta_p", value) for method, value in zip(METHODS, ("3", "1", "2"), strict=True)]
    )
    assert tables.compare(found(name="paper/table1@mini"))[0].lines[0].endswith("over 3 methods: −1.00.")


def test_two_methods_or_one_value_have_no_order(found, monkeypatch):
    read = found(name="paper/table1@mini")
    printed(monkeypatch, [number(method, "Delta_p", "1") for method in METHODS])
    assert tables.compare(read)[0].lines == []
    printed(monkeypatch, [number(method, "Delta_p", value) for method, value in zip(METHODS, "12", strict=False)])
    assert tables.compare(read)[0].lines == []


def test_without_published_numbers_everything_measured_is_shown(found, monkeypatch):
    printed(monkeypatch, [])
    (table,) = tables.compare(found(single=None))
    assert table.methods[0] == "single-task"
    assert table.metrics[-1] == "Delta_p"
    assert tables.cell(table.entries["EW", "b_mse"]) == ["–", "1.200", "–"]


def test_a_wide_table_comes_in_parts(found):
    (table,) = tables.compare(found())
    parts = tables.drawn(table, 100)
    assert [len(part.columns) for part in parts] == [3, 3]
    assert {part.row_count for part in parts} == {4}
    assert len(tables.drawn(table, 20)) == 4


def test_files_hold_what_the_terminal_shows(found, tmp_path):
    read = found()
    tables.write(tables.compare(read), read, ["Something is different."], tmp_path)
    rows = list(csv.DictReader((tmp_path / tables.CSV).open()))
    row = next(row for row in rows if (row["method"], row["metric"]) == ("EW", "Delta_p"))
    assert list(row) == list(tables.COLUMNS)
    assert row["experiment"] == "paper/table1"
    assert (row["dataset"], row["architecture"], row["panel"]) == ("Tiny data", "Net_1", "plain")
    assert (row["published"], row["published_std"], row["measured_std"], row["seeds"]) == ("-1.5", "0.2", "", "1")
    assert float(row["measured"]) == pytest.approx(-10.0)
    assert float(row["difference"]) == pytest.approx(-8.5)
    timed = next(row for row in rows if row["metric"] == "time_s_per_iter")
    assert (timed["measured"], timed["difference"], timed["seeds"]) == ("", "", "")

    page = (tmp_path / tables.MARKDOWN).read_text()
    assert page.startswith("# paper/table1\n\nAll.\n\nSomething is different.\n\n## paper/table1, plain: tiny\n")
    assert "| EW | 0.451 \\| 1.200 \\| +0.749 |" in page
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1

    latex = (tmp_path / tables.LATEX).read_text()
    assert r"\begin{tabular}{lrrrr}" in latex
    assert r"method & a\_mse & Delta\_p & b\_lambda & time\_s\_per\_iter \\" in latex
    assert r"Half \& half & -- $\mid$ 0.8000 $\mid$ -- &" in latex
    assert r"$-$1.5 $\pm$ 0.2 $\mid$ $-$10.0 $\mid$ $-$8.5" in latex
    assert all(latex.count(rule) == 1 for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_half_a_panel_is_shown_with_gaps(found, tmp_path):
    read = found()
    (tmp_path / "plain" / "ew" / "0" / records.CHECKPOINT).unlink()
    (table,) = tables.compare(measured.collect(read.experiment, tmp_path, load))
    assert tables.cell(table.entries["EW", "Delta_p"]) == ["−1.5 ± 0.2", "–", "–"]
    assert tables.cell(table.entries["Norms", "Delta_p"])[1] == "5.0"


def test_what_latex_takes_for_its_own_is_escaped():
    text = tables.escape("50 % of a_b & {c} # $ ~ ^ \\ ± − – | √k")
    assert text == (
        r"50 \% of a\_b \& \{c\} \# \$ \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"$\pm$ $-$ -- $\mid$ $\surd$k"
    )
