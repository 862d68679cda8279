import io
import os
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from isonomy.bench import data
from isonomy.bench.data import stand_ins
from isonomy.bench.data.roots import VARIABLE
from isonomy.bench.experiments import catalogue, smoke
from isonomy.bench.experiments.run import Wishes
from isonomy.bench.experiments.schema import Experiment, Panel
from isonomy.bench.options import name_of

# A small network for each data set, two tasks and one method: every kind of file is read, trained on and judged.
# One of each kind: arrays, MATLAB files, images, an input a task, molecules, attributes.
QUICK = {"nyuv2", "pascal5", "cityscapes3", "office31", "qm9", "celeba"}
SAMPLE = {
    "nyuv2": ("dbmtl/table1", ("seg", "normal"), "resnet_mini"),
    "cityscapes2": ("dbmtl/table2", ("seg", "depth"), "resnet_mini"),
    "office31": ("dbmtl/table3", ("amazon", "webcam"), "resnet18_pooled"),
    "officehome": ("dbmtl/table4", ("art", "product"), "resnet18_pooled"),
    "qm9": ("dbmtl/table5", ("mu", "u0"), None),
    "cityscapes3": ("imtl/table1", ("ins", "disp"), "resnet_mini"),
    "celeba": ("imtl/table2", ("bald", "smiling"), "resnet18_pooled"),
    "nyud4": ("revisit/table6", ("depth", "edge"), "resnet_mini"),
    "pascal5": ("revisit/table7", ("parts", "sal"), "resnet_mini"),
    "replica3": ("revisit/table5", ("seg", "normal"), "resnet_mini"),
}


@pytest.fixture
def shown():
    return Console(file=io.StringIO(), width=160)


def sample(name):
    experiment, tasks, backbone = SAMPLE[name]
    found = catalogue.load(experiment)
    panel = next(panel for panel in found.panels if name_of(panel.data) == name)
    few = {"tasks": tasks, "methods": {"DB-MTL": "db_mtl"}, "architecture": "hps", "backbone": backbone, "head": None}
    # The published numbers are of more tasks.
    return replace(found, panels=(replace(panel, **few, published=None),))


def test_the_sample_has_every_data_set():
    assert set(SAMPLE) == set(stand_ins.NAMES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SAMPLE]
)
def test_every_data_set_is_trained_on_in_its_real_format(name, shown):
    before = os.environ.get(VARIABLE)
    assert smoke.smoke([sample(name)], 1, shown, Wishes()) == 0, shown.file.getvalue()
    assert " 3 runs, " in shown.file.getvalue()
    assert os.environ.get(VARIABLE) == before


def test_epochs_are_two_steps_and_everything_else_is_the_data_sets():
    problem, own = smoke.load("digits"), data.load("digits")
    device = torch.device("cpu")
    batches = list(problem.batches(0, 0, device))
    assert len(batches) == smoke.STEPS
    first = next(iter(own.batches(0, 0, device)))
    assert torch.equal(batches[0].images, first.images)
    assert (problem.tasks, problem.recipe, problem.name) == (own.tasks, own.recipe, own.name)


def test_data_are_few_and_small():
    network = {"architecture": "hps", "backbone": "vit_base_dinov2"}
    panel = Panel("panel", "pascal5:split=paper,size=518x518,batch_size=4", {"EW": "ew"}, **network)
    assert smoke._brief(panel, "small").data == "pascal5:split=paper,size=70x70,batch_size=2"
    assert smoke._brief(panel, "full").data == "pascal5:split=paper,size=518x518,batch_size=2"
    assert smoke._brief(replace(panel, data="rooms:size=96x128"), "small").data == (
        "rooms:size=96x128,train=32,val=4,test=4,batch_size=2"
    )
    assert smoke._brief(replace(panel, data="digits"), "small").data == "digits"


def test_a_failure_is_named_and_the_others_go_on(shown):
    panels = (
        Panel("broken", "digits", {"Upside down": "nothing"}),
        Panel("fails", "toy", {"Searched": "url"}),
        Panel("fine", "digits", {"EW": "ew"}, tasks=("left",)),
    )
    experiment = Experiment("paper/table1", "table", "All", panels=panels)
    assert smoke.smoke([experiment], 1, shown, Wishes()) == 2
    said = shown.file.getvalue()
    assert "Unknown method 'nothing'" in said
    assert "paper/table1     fine                 2 runs, " in said


def test_a_failing_cell_is_named(shown, monkeypatch):
    toy = data.load("toy")
    monkeypatch.setattr(type(toy), "losses", lambda *_: 1 / 0)
    experiment = Experiment("paper/table1", "table", "All", panels=(Panel("toy", "toy", {"EW": "ew"}),))
    assert smoke.smoke([experiment], 1, shown, Wishes()) == 1
    assert "failed: ew/0: ZeroDivisionError: division by zero" in shown.file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*catalogue.names(), *(f"{each.name}@mini" for each in catalogue.find("all@mini"))])
def test_every_cell_of_every_experiment_runs(name, shown):
    assert smoke.smoke(catalogue.find(name), 1, shown, Wishes()) == 0, shown.file.getvalue()
