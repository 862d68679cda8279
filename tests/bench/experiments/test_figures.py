import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from PIL import Image

from isonomy.bench import plan, records, results, runner
from isonomy.bench.delta import average, task_deltas
from isonomy.bench.experiments import figures, measured
from isonomy.bench.experiments.figures import bars, curves, geometry, pictures, radar, sheet
from isonomy.bench.experiments.schema import Experiment, Panel, Published
from isonomy.errors import IsonomyError
from tests.bench.tiny import load
from tests.fixtures import close

METHODS = {"EW": "ew", "IMTL-L": "imtl_l", "PCGrad": "pcgrad", "GradDrop": "graddrop"}
PRINTED = Published("NYUv2", "HPS DeepLabV3+ ResNet-50 dilated", ("dbmtl/table1",))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """An experiment's folder with a finished panel of two seeds and one that has begun."""
    folder = tmp_path_factory.mktemp("experiment")
    flags = {"data": "tiny", "methods": list(METHODS.values()), "seeds": 2, "epochs": 3}
    found = plan.resolve(flags, folder / "whole", False, load)
    for name in ("whole", "begun"):
        (folder / name).mkdir()
        records.write_json(folder / name / plan.FILE, found.facts)
    for cell in plan.cells(found, load):
        runner.run_cell(cell, folder / "whole", load)
    shutil.copytree(folder / "whole" / "ew" / "0", folder / "begun" / "ew" / "0")
    return folder


@pytest.fixture(autouse=True)
def drawing():
    with sheet.style():
        yield


def experiment(*panels, **more):
    return Experiment("dbmtl/fig2", "figure", "a test", panels=panels, **more)


def panel(name="whole", **more):
    return Panel(name, "tiny", METHODS, **more)


def found(out, *panels, **more):
    return measured.collect(experiment(*(panels or [panel()]), **more), out, load)


def lengths(ax):
    return [patch.get_width() for patch in ax.patches]


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]


def drawn(ax):
    """The lines of a panel by their labels."""
    return {line.get_label(): list(line.get_ydata()) for line in ax.lines}


def epochs(out, method):
    return [records.read_metrics(out / "whole" / method / str(seed)) for seed in range(2)]


def test_overall_scores_stand_beside_the_published_ones(out):
    figure = bars.deltas(found(out, panel(published=PRINTED)))
    rows = results.collect(out / "whole", load)
    expected = [rows.row(method).delta.mean for method in METHODS.values()]
    (ax,) = figure.axes
    assert lengths(ax) == pytest.approx([*expected, -1.78, -1.92, -1.57, -1.85])
    assert [label.get_text() for label in ax.get_yticklabels()] == list(METHODS)
    whiskers = np.ptp(np.array(ax.collections[0].get_segments())[..., 0], axis=1)
    assert whiskers == pytest.approx([2 * rows.row(method).delta.std for method in METHODS.values()])


def test_panels_that_have_no_overall_score_are_left_out(out):
    figure = bars.deltas(found(out, panel("begun"), panel()))
    assert titles(figure) == ["whole"]
    figure = bars.deltas(found(out, panel("begun", reference="whole"), panel()))
    assert titles(figure) == ["begun", "whole"]
    assert len(lengths(figure.axes[0])) == 1


def test_each_tasks_part_is_relative_to_the_reference(out):
    (ax,) = bars.task_deltas(found(out)).axes
    rows = results.collect(out / "whole", load)
    expected = [rows.row(method).task_deltas[task] for method in METHODS.values() for task in "abc"]
    assert lengths(ax) == pytest.approx(expected)
    assert ax.get_legend_handles_labels()[1] == list(METHODS)


def test_seconds_are_those_of_an_epoch(out):
    (ax,) = bars.seconds(found(out)).axes
    expected = [fmean(line["seconds"] for run in epochs(out, method) for line in run) for method in METHODS.values()]
    assert lengths(ax) == pytest.approx(expected)


def test_a_curve_is_the_mean_over_seeds(out):
    figure = curves.curves(found(out), ["train_losses", "squared_norms"], "methods")
    assert titles(figure) == [*"abc"] * 2
    losses, norms = figure.axes[1], figure.axes[3]
    for printed, method in METHODS.items():
        runs = epochs(out, method)
        expected = [fmean(run[epoch]["train_losses"]["b"] for run in runs) for epoch in range(3)]
        assert drawn(losses)[printed] == pytest.approx(expected)
        expected = [fmean(run[epoch]["dots"][0][0] for run in runs) for epoch in range(3)]
        assert drawn(norms)[printed] == pytest.approx(expected)
        assert expected[0] > fmean(run[0]["gradient_norms"]["a"] for run in runs) ** 2 * 0.99
    assert norms.get_yscale() == "log"
    assert losses.get_yscale() == "linear"


def test_a_panel_for_every_method_has_a_line_for_every_task(out):
    figure = curves.curves(found(out), ["effective_weights", "scaled_losses"], "tasks")
    # GradDrop makes its direction without weights.
    assert titles(figure) == ["EW", "IMTL-L", "PCGrad", "EW", "IMTL-L", "PCGrad", "GradDrop"]
    assert drawn(figure.axes[0]) == {task: [1.0] * 3 for task in "abc"}
    runs = epochs(out, "imtl_l")
    scaled = figure.axes[5]
    expected = [fmean(run[e]["train_losses"]["c"] * run[e]["loss_weights"]["c"] for run in runs) for e in range(3)]
    assert drawn(scaled)["c"] == pytest.approx(expected)


def test_pairs_of_tasks_have_panels_of_their_own(out):
    figure = curves.curves(found(out), ["cosines", "dots"], "methods")
    assert titles(figure) == ["a and b", "a and c", "b and c"] * 2
    run = epochs(out, "pcgrad")
    assert drawn(figure.axes[2])["PCGrad"][0] == pytest.approx(fmean(each[0]["cosines"][1][2] for each in run))
    assert drawn(figure.axes[4])["PCGrad"][1] == pytest.approx(fmean(each[1]["dots"][0][2] for each in run))


def test_single_task_training_can_be_drawn_beside(out):
    figure = curves.curves(found(out), ["gradient_norms"], "methods", alone=True)
    runs = epochs(out, "single_task-c")
    assert drawn(figure.axes[2])["Single-task"][2] == pytest.approx(
        fmean(run[2]["gradient_norms"]["c"] for run in runs)
    )
    assert set(drawn(figure.axes[2])) == {*METHODS, "Single-task"}


def test_runs_that_go_on_are_drawn_as_far_as_they_have_come(out):
    figure = curves.curves(found(out, panel("begun")), ["train_losses"], "methods")
    assert [set(drawn(ax)) for ax in figure.axes] == [{"EW"}] * 3


def test_a_radar_has_a_polygon_for_every_network(out):
    other = panel("begun", reference="whole")
    figure = radar.radar(found(out, panel(), other, single="STL"))
    assert titles(figure) == ["tiny: STL", *(f"tiny: {name}" for name in METHODS)]
    rows = results.collect(out / "whole", load)
    values = [rows.values["ew", seed] for seed in range(2)]
    alone = [{t: rows.values[f"single_task-{t}", seed][t] for t in "abc"} for seed in range(2)]
    expected = [task_deltas(average(runs), average(alone), rows.up) for runs in (values, values[:1])]
    ew = figure.axes[1]
    shown = [list(line.get_ydata()) for line in ew.lines if not line.get_label().startswith("_")]
    assert shown == [pytest.approx([*gains.values(), gains["a"]]) for gains in expected]
    labels = ew.get_legend_handles_labels()[1]
    assert labels == [
        f"{n}, {sheet.signed(fmean(g.values()))} %" for n, g in zip(("whole", "begun"), expected, strict=True)
    ]
    assert [label.get_text() for label in ew.get_xticklabels()] == list("abc")
    assert figure.axes[0].get_legend_handles_labels()[1] == ["whole, +0.0 %"]


def test_nothing_is_drawn_of_nothing(tmp_path):
    for name, options in {
        "deltas": {}, "task_deltas": {}, "seconds": {}, "radar": {}, "pictures": {},
        "curves": {"values": ["dots"], "lines": "methods"},
    }.items():  # fmt: skip
        assert figures.draw(experiment(panel(), figure={"draw": name, **options}), tmp_path, load) == []
    assert figures.draw(experiment(panel()), tmp_path, load) == []
    assert list(tmp_path.iterdir()) == []


def test_a_figure_is_an_svg_and_a_png(out):
    made = replace(experiment(panel(), figure={"draw": "deltas"}), name="dbmtl/fig2@mini")
    paths = figures.draw(made, out, load)
    assert paths == [out / "figures" / f"dbmtl-fig2-mini{ending}" for ending in (".svg", ".png")]
    assert "<svg" in paths[0].read_text()
    assert Image.open(paths[1]).size[0] > 400
    before = paths[0].read_bytes()
    figures.draw(made, out, load)
    assert paths[0].read_bytes() == before


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ({"draw": "deltos"}, "figure of experiment dbmtl/fig2 'deltos'"),
        ({"draw": "curves", "values": ["lost"], "lines": "tasks"}, "value of curves 'lost'"),
        ({"draw": "curves", "values": ["dots"], "lines": "task"}, "kind of lines 'task'"),
    ],
)
def test_what_is_unknown_is_refused(out, figure, message):
    with pytest.raises(IsonomyError, match=message):
        figures.draw(experiment(panel(), figure=figure), out, load)


def test_predictions_stand_below_the_labels(out):
    shades = {"0-image": 10, "0-a-truth": 20, "0-b-truth": 30, "0-c-truth": 40, "0-a": 50, "0-b": 60, "0-c": 70}
    folder = out / "whole" / "imtl_l" / "0" / "pictures"
    folder.mkdir()
    for name, shade in shades.items():
        Image.fromarray(np.full((4, 6, 3), shade, np.uint8)).save(folder / f"{name}.png")
    figure = pictures.predictions(found(out))
    shown = [[image.get_array().max() for image in ax.images] for ax in figure.axes]
    assert shown[:8] == [[10], [20], [30], [40], [], [50], [60], [70]]
    assert [ax.get_ylabel() for ax in figure.axes[::4]][:2] == ["labels", "IMTL-L"]
    assert titles(figure) == ["image", *"abc"]
    shutil.rmtree(folder)


def test_noise_is_on_labels_and_not_on_images(monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "SIZE", (64, 64))
    nothing = measured.collect(experiment(), Path(tmp_path), load)
    beside, alone = pictures.noise(nothing, clean=True), pictures.noise(nothing, clean=False)
    assert titles(beside) == [
        "image", "seg", "seg with noise", "depth", "depth with noise", "normal", "normal with noise",
    ]  # fmt: skip
    assert titles(alone) == ["image", "seg with noise", "depth with noise", "normal with noise"]
    rows = [[ax.images[0].get_array() for ax in figure.axes] for figure in (beside, alone)]
    for number in range(3):
        both, noisy = rows[0][7 * number :][:7], rows[1][4 * number :][:4]
        assert all(np.array_equal(both[i], noisy[j]) for i, j in ((0, 0), (2, 1), (4, 2), (6, 3)))
        assert not any(np.array_equal(both[i], both[i + 1]) for i in (1, 3, 5))


def test_the_geometry_is_that_of_the_methods():
    found = geometry.aggregates()
    impartial = geometry.projections(found["IMTL-G"])
    close(impartial, impartial[:1].expand(3), 1e-9)
    gradients = np.array(geometry.GRADIENTS)
    # MGDA's is orthogonal to the plane through the gradients, so it projects alike on all of them.
    assert found["MGDA"].numpy() @ (gradients[1:] - gradients[0]).T == pytest.approx([0, 0], abs=1e-9)
    parts = np.linalg.solve(gradients.T, found["GradNorm (gamma = 0)"].numpy())[:, None] * gradients
    norms = np.linalg.norm(parts, axis=1)
    assert norms == pytest.approx([norms[0]] * 3)
    figure = geometry.geometry(measured.Measured(experiment(), {}))
    assert [ax.get_title().splitlines()[0] for ax in figure.axes] == list(geometry.METHODS)
