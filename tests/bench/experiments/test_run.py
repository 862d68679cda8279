import csv
import io
from dataclasses import replace

import pytest
from rich.console import Console

from isonomy.bench import plan, report
from isonomy.bench.experiments import catalogue, run, tables
from isonomy.bench.experiments.run import Wishes
from isonomy.bench.experiments.schema import Experiment, Panel
from isonomy.errors import IsonomyError
from tests.bench.experiments.papers import paper, printed
from tests.bench.tiny import load, load_failing


@pytest.fixture(autouse=True)
def _plain_reports(monkeypatch):
    """Sweeps' reports, which have tests of their own, without figures."""
    monkeypatch.setattr(report, "render", lambda found: "")


@pytest.fixture
def shown():
    return Console(file=io.StringIO(), width=160)


@pytest.fixture
def table1(monkeypatch):
    """A paper with one table, in the place of the catalogue."""
    printed(monkeypatch)
    monkeypatch.setattr(catalogue, "find", lambda pattern: [paper()])


def test_an_experiment_runs_and_goes_on_to_the_same_numbers(table1, shown, tmp_path):
    wishes = Wishes(seeds=1, epochs=1)
    assert run.run("paper/table1", tmp_path, 1, shown, wishes, load) == []
    said = shown.file.getvalue()
    assert "paper/table1: All\n" in said
    assert "paper/table1, plain: tiny: published | measured | difference" in said
    assert "test split" not in said  # the sweep's own table, which says less
    assert "1 seed instead of 2." in said
    assert "plain: 1 epoch instead of 2." in said
    assert "missing" not in said
    assert plan.read(tmp_path / "x10").scales == {"a": 10.0}
    rows = list(csv.DictReader((tmp_path / tables.CSV).open()))
    found = {(row["panel"], row["method"], row["metric"]): row for row in rows}
    assert float(found["plain", "STL", "Delta_p"]["measured"]) == pytest.approx(0)
    assert float(found["plain", "EW", "time_s_per_iter"]["measured"]) > 0
    change = float(found["x10", "EW", "a_mse_x10_abs_change"]["measured"])
    pair = [float(found[place]["measured"]) for place in (("plain", "EW", "a_mse"), ("x10", "EW", "a_mse_x10"))]
    assert change == pytest.approx(abs(pair[1] - pair[0]))

    before = (tmp_path / tables.CSV).read_bytes()
    run.run("paper/table1", tmp_path, 1, shown, wishes, load)
    assert (tmp_path / tables.CSV).read_bytes() == before


def test_failures_leave_gaps_and_are_told(table1, shown, tmp_path):
    failures = run.run("paper/table1", tmp_path, 1, shown, Wishes(seeds=1, epochs=1, methods=["EW"]), load_failing)
    assert {failure.reason for failure in failures} == {"no network today second line"}
    assert "Not all runs are finished, 4 are missing: plain/single_task-b/0, plain/ew/0" in shown.file.getvalue()
    assert (tmp_path / tables.CSV).exists()


def test_nothing_is_written_before_everything_is_checked(monkeypatch, shown, tmp_path):
    first, second = paper().panels
    broken = paper(panels=(first, replace(second, scales={"nothing": 2.0})))
    monkeypatch.setattr(catalogue, "find", lambda pattern: [broken])
    with pytest.raises(IsonomyError, match="'nothing'"):
        run.run("paper/table1", tmp_path / "out", 1, shown, Wishes(), load)
    assert not (tmp_path / "out").exists()


def test_missing_data_name_their_layout_before_anything_is_written(monkeypatch, shown, tmp_path):
    monkeypatch.setenv("ISONOMY_DATA", str(tmp_path))
    with pytest.raises(IsonomyError, match=r"Data set 'office31': .*amazon.* is missing"):
        run.run("dbmtl/table3", tmp_path / "out", 1, shown, Wishes(weights=run.RANDOM))
    assert not (tmp_path / "out").exists()


def test_several_experiments_have_a_folder_each(monkeypatch, shown, tmp_path):
    drawings = [Experiment(f"paper/fig{number}", "drawing", "A drawing", "Nothing to train.") for number in (1, 2)]
    (panel, _) = paper().panels
    table = paper(panels=(replace(panel, methods={"EW": "ew"}),))
    monkeypatch.setattr(catalogue, "find", lambda pattern: [table, *drawings])
    run.run("paper/*", tmp_path, 1, shown, Wishes(seeds=1, epochs=1), load)
    assert (tmp_path / "paper" / "table1" / tables.CSV).exists()
    said = shown.file.getvalue()
    assert "paper/fig2: A drawing\nNothing to train.\n" in said
    assert not (tmp_path / "paper" / "fig1").exists()


def test_a_claim_ends_with_its_verdict(monkeypatch, shown, tmp_path):
    claim = Experiment(
        "claims/alpha", "claim", "The best length", seeds=1, claim="The largest wins.", check="alpha",
        panels=(Panel("tiny", "tiny", {"max": "db_mtl", "min": "db_mtl:alpha=min"}, recipe={"epochs": 1}),),
    )  # fmt: skip
    monkeypatch.setattr(catalogue, "find", lambda pattern: [claim])
    run.run("claims/alpha", tmp_path, 1, shown, Wishes(), load)
    assert "Claim: The largest wins.\ntiny: Δp max" in shown.file.getvalue()
    assert "It held here.\n" in shown.file.getvalue() or "It did not hold here.\n" in shown.file.getvalue()


@pytest.mark.parametrize(
    ("names", "plain", "x10"),
    [
        (None, ["EW", "Half & half", "Norms"], ["EW"]),
        (["Norms", "EW"], ["Norms", "EW"], ["EW"]),
        (["ew"], ["EW"], ["EW"]),
        (["fixed"], ["Half & half"], []),
        (["fixed:weights=1x2x0.5"], ["Half & half"], []),
        (["log", "Norms"], ["log", "Norms"], ["log"]),
        (["fixed:weights=3x2x1"], ["fixed:weights=3x2x1"], ["fixed:weights=3x2x1"]),
    ],
)
def test_methods_are_chosen_by_their_names_or_the_papers_and_added(names, plain, x10):
    found = run.chosen(paper(), names)
    assert [list(panel.methods) for panel in found.panels] == [plain, x10]
    assert [panel.name for panel in run.trained(found)] == (["plain", "x10"] if x10 else ["plain"])


def test_a_method_of_nobody_is_refused():
    with pytest.raises(
        IsonomyError, match=r"Unknown method of experiment paper/table1, or of Isonomy 'Nroms': did you mean 'Norms'"
    ):
        run.chosen(paper(), ["Nroms"])


def test_a_panel_without_a_method_left_leaves_others_numbers_alone(table1, shown, tmp_path):
    run.run("paper/table1", tmp_path, 1, shown, Wishes(seeds=1, epochs=1, methods=["Norms"]), load)
    assert not (tmp_path / "x10").exists()
    assert "Not all" not in shown.file.getvalue()
    rows = list(csv.DictReader((tmp_path / tables.CSV).open()))
    assert {row["metric"] for row in rows} == {"a_mse", "Delta_p", "b_lambda", "time_s_per_iter"}


def test_flags_are_the_files_but_for_wishes():
    experiment = paper()
    flags = run.flags(experiment, experiment.panels[1], Wishes(flags={"device": "cpu"}))
    assert {name: value for name, value in flags.items() if value is not None} == {
        "data": "tiny", "methods": ["ew"], "seeds": 2, "epochs": 2, "scales": {"a": 10.0}, "device": "cpu",
    }  # fmt: skip
    assert run.flags(experiment, experiment.panels[1], Wishes(seeds=1, epochs=7))["epochs"] == 7


def test_two_rows_of_one_method_are_one_training():
    panel = Panel("tiny", "tiny", {"EW": "ew", "None": "ew", "Log": "log"})
    assert run.flags(paper(panels=(panel,)), panel, Wishes())["methods"] == ["ew", "log"]


def test_weights_are_looked_for_and_their_absence_named(tmp_path):
    experiment = catalogue.load("dbmtl/table3")
    (panel,) = experiment.panels
    with pytest.raises(IsonomyError, match=r"starts from pretrained weights.*resnet18.pth.*--weights-root none"):
        run.flags(experiment, panel, Wishes())
    with pytest.raises(IsonomyError, match=rf"{tmp_path}/resnet18.pth is missing, the weights of 'resnet18_pooled'"):
        run.flags(experiment, panel, Wishes(weights=str(tmp_path)))
    (tmp_path / "resnet18.safetensors").touch()
    assert run.flags(experiment, panel, Wishes(weights=str(tmp_path)))["weights"] == str(
        tmp_path / "resnet18.safetensors"
    )
    assert run.flags(experiment, panel, Wishes(weights=run.RANDOM))["weights"] is None
    small = catalogue.on_embedded(experiment)
    assert run.flags(small, small.panels[0], Wishes())["weights"] is None


def test_what_differs_is_said():
    (panel, _) = paper().panels
    experiment = paper(note="A  note\nin two lines.", panels=(replace(panel, weights="net"),))
    assert run.differences(experiment, Wishes(weights=run.RANDOM, seeds=2, epochs=2), load) == [
        "A note in two lines.",
        "Networks start from random weights instead of pretrained ones.",
    ]
    assert run.differences(replace(experiment, name="x@mini"), Wishes(), load)[-1].startswith(
        "Data and networks are small"
    )


def test_a_folder_that_cannot_be_written_is_refused(table1, shown, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(IsonomyError, match="is not a folder"):
        run.run("paper/table1", tmp_path / "file", 1, shown, Wishes(), load)


def test_a_folder_of_another_experiment_is_refused(table1, shown, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / plan.FILE).write_text("{}")
    with pytest.raises(IsonomyError, match=r"holds sweeps that experiment 'paper/table1' has not \(elsewhere\): name"):
        run.run("paper/table1", tmp_path, 1, shown, Wishes(), load)
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
