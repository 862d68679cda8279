"""The experiments' files: what they name exists, and fits together."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest

from isonomy.bench import choice, data, methods, plan
from isonomy.bench.data.packed import Packed
from isonomy.bench.experiments import catalogue, figures
from isonomy.bench.options import name_of

# Of each paper how many tables and figures there are.
PAPERS = {"dbmtl": (8, 8), "imtl": (2, 7), "revisit": (9, 16)}
EVERY = [
    f"{paper}/{kind}{number}"
    for paper, counts in PAPERS.items()
    for kind, count in zip(("table", "fig"), counts, strict=True)
    for number in range(1, count + 1)
]
DRAWINGS = {
    "imtl/fig1", "imtl/fig2", "imtl/fig3", "revisit/table1", "revisit/table8", "revisit/table9", "revisit/fig2",
    "revisit/fig3", "revisit/fig5",
}  # fmt: skip
LOADED = [catalogue.load(name) for name in EVERY]
PANELS = [(each.name, panel) for each in LOADED for panel in each.panels]
SEARCHED = {
    "nyud4": {"seg": 1, "depth": 1, "normal": 2, "edge": 50},
    "pascal5": {"seg": 1, "parts": 2, "sal": 5, "normal": 5, "edge": 50},
}
# Those of the packaged data sets are read from the disk.
SIZES = {"nyuv2": (288, 384), "cityscapes2": (128, 256)}
IMAGES = {"nyud4": 795, "pascal5": 4998}


def networks(cases):
    """Every data set with every network once, and all methods that any panel compares on it."""
    found = {}
    for name, panel in cases:
        _, methods = found.setdefault(repr({**panel.flags, **panel.recipe}), ((name, panel), {}))
        methods |= dict.fromkeys(panel.methods.values())
    return [(name, replace(panel, methods={each: each for each in every})) for (name, panel), every in found.values()]


def ids(case):
    return f"{case[0]}:{case[1].name}"


def wanted(panel):
    return {**panel.flags, "methods": list(panel.methods.values()), "seeds": 1}


def test_every_table_and_figure_is_there():
    assert sorted(name for name in catalogue.names() if name.partition("/")[0] in PAPERS) == sorted(EVERY)
    assert {each.name for each in LOADED if each.kind == "drawing"} == DRAWINGS
    for each in LOADED:
        assert each.kind == ("drawing" if each.name in DRAWINGS else "table" if "/table" in each.name else "figure")
        assert each.what.startswith(("DB-MTL, ", "IMTL, ", "Revisit, "))
        assert all(panel.methods for panel in each.panels)


def test_every_figure_can_be_drawn():
    drawn = [each for each in LOADED if each.kind == "figure"]
    assert len(drawn) == 25
    for each in LOADED:
        if each.figure is None:
            assert each.kind != "figure"
            continue
        options = dict(each.figure)
        inspect.signature(figures.DRAWN[options.pop("draw")]).bind(None, **options)


@pytest.mark.parametrize("case", networks(PANELS), ids=ids)
def test_a_panel_fits_its_data_set(case, monkeypatch):
    _, panel = case
    problem = data.load(panel.data)
    if isinstance(problem, Packed):
        monkeypatch.setattr(type(problem), "size", SIZES[name_of(panel.data)])
    network = choice.design({k: v for k, v in panel.flags.items() if v is not None}, problem)
    tasks = [task.name for task in data.select(problem, panel.tasks)]
    chosen = choice.methods(list(panel.methods), panel.level, problem, network, tasks)
    choice.require_splits(problem.recipe.changed(panel.recipe), chosen, problem)
    assert choice.observer(panel.observe, chosen, problem, network) == panel.observe
    assert set(panel.scales) <= set(tasks)


EMBEDDED = [(each.name, panel) for each in LOADED if each.panels for panel in catalogue.on_embedded(each).panels]


@pytest.mark.parametrize("case", networks(EMBEDDED), ids=ids)
def test_a_panel_has_a_miniature(case):
    _, panel = case
    found = plan.resolve(wanted(panel), Path("nowhere"), False)
    assert found.weights is None
    problem = data.load(panel.data)
    assert found.recipe == problem.recipe
    assert len(plan.cells(found)) == len(found.tasks) + len(found.methods)


def test_a_miniature_has_the_papers_tasks():
    for each in LOADED:
        for panel in catalogue.on_embedded(each).panels if each.panels else ():
            counts = [len(data.load(text).tasks) for text in (each.panel(panel.name).data, panel.data)]
            assert counts[0] == counts[1] or name_of(panel.data) == "digits"


def test_what_a_panel_is_measured_by_has_its_encoder():
    for found in (*LOADED, *(catalogue.on_embedded(each) for each in LOADED if each.panels)):
        for panel in found.panels:
            if panel.reference is not None:
                other = found.panel(panel.reference)
                # Foundation models are measured by one of them.
                assert panel.backbone == other.backbone or panel.backbone.startswith("vit_base_")
                assert name_of(panel.data) == name_of(other.data)


@pytest.mark.parametrize("name", EVERY)
def test_searched_weights_are_those_of_the_tasks_they_stand_for(name):
    for panel in catalogue.load(name).panels:
        if "Grid Search" in panel.methods:
            tasks = [task.name for task in data.load(panel.data).tasks]
            weights = methods.find(panel.methods["Grid Search"]).options["weights"]
            assert dict(zip(tasks, weights, strict=True)) == SEARCHED[name_of(panel.data)]


def test_epochs_are_the_papers_iterations():
    seen = 0
    for name, panel in PANELS:
        problem = data.load(panel.data)
        if not name.startswith("revisit/") or panel.backbone in ("resnet18", "resnet50"):
            continue
        base = name_of(panel.data)
        steps = problem.steps if base == "replica3" else IMAGES[base] // problem.batch_size
        assert panel.backbone.startswith("vit") or panel.backbone == "hrnet18"
        assert problem.batch_size == (6 if panel.backbone == "hrnet18" else 4)
        assert abs(panel.recipe["epochs"] * steps - 40_000) <= steps
        seen += 1
    assert seen == 14 + 14 + 8 + 8


def test_panels_of_one_name_are_one_sweep():
    """So that a figure's runs can be those of the table that it draws."""
    pairs = [("revisit/table4", "revisit/fig1")]
    for table, figure in pairs:
        first, second = catalogue.load(table), catalogue.load(figure)
        assert [wanted(panel) for panel in first.panels] == [wanted(panel) for panel in second.panels]
        assert [panel.name for panel in first.panels] == [panel.name for panel in second.panels]


def measured_at(text):
    named = methods.find(text)
    return named.level or next(iter(named.method.levels), None)


@pytest.mark.parametrize("case", PANELS, ids=ids)
def test_gradients_are_measured_where_the_paper_measures_them(case):
    name, panel = case
    paper = name.partition("/")[0]
    # LibMTL has GradDrop at the feature alone.
    usual = {
        "dbmtl": {"GradDrop": "features"},
        "imtl": {"IMTL-G (exact)": "parameters", "PCGrad": "parameters"},
        "revisit": {"AvgNorm": "last_layer"},
    }[paper]
    for printed, ours in panel.methods.items():
        expected = usual.get(printed, "features" if paper == "imtl" else "parameters")
        assert measured_at(ours) in (None, expected), printed


def test_what_is_learned_has_the_models_rate_where_the_papers_say_so():
    rates = {}
    for name, panel in PANELS:
        for ours in panel.methods.values():
            if "own_lr" in (named := methods.find(ours)).options:
                assert named.options["own_lr"] == panel.recipe["learning_rate"]
                rates.setdefault(name.partition("/")[0], {}).setdefault(named.method.name, set()).add(
                    named.options["own_lr"]
                )
    assert rates == {
        "dbmtl": {"uw": {1e-4, 1e-3}, "imtl_l": {1e-4, 1e-3}, "imtl": {1e-4, 1e-3}, "gradnorm": {1e-4, 1e-3}},
        "imtl": {"imtl_l": {1e-4, 5e-4}, "imtl": {1e-4, 5e-4}},
    }
