import pytest

from isonomy.bench.experiments.schema import Published, experiment
from isonomy.errors import IsonomyError

SETS = {"usual": {"EW": "ew", "Log": "log"}}
PANEL = {"name": "digits", "data": "digits"}


def made(**entries):
    return experiment(
        "paper/table1", {"kind": "table", "what": "All", "methods": "usual", "panels": [PANEL], **entries}, SETS
    )


def test_a_file_becomes_an_experiment():
    found = made(
        seeds=2,
        single="STL",
        figure={"draw": "deltas"},
        panels=[
            PANEL,
            {
                **PANEL,
                "name": "other",
                "methods": {"Ours": "imtl"},
                "tasks": ["left"],
                "published": {"dataset": "D", "architecture": "A", "experiments": ["paper/table2"]},
                "recipe": {"epochs": 3},
                "reference": "digits",
            },
        ],
    )
    first, second = found.panels
    assert (found.name, found.kind, found.seeds, found.single) == ("paper/table1", "table", 2, "STL")
    assert first.methods == {"EW": "ew", "Log": "log"}
    assert first.published is None
    assert second.methods == {"Ours": "imtl"}
    assert second.published == Published("D", "A", ("paper/table2",))
    assert found.panel("other") is second
    assert {name: value for name, value in second.flags.items() if value is not None} == {
        "data": "digits",
        "tasks": ("left",),
        "epochs": 3,
    }


def test_what_methods_learn_can_have_the_models_rate():
    methods = {"Ours": "uw:init=-0.5,own_lr=model", "Other": "log"}
    found = made(panels=[{**PANEL, "methods": methods, "recipe": {"learning_rate": 5e-4}}])
    assert found.panels[0].methods == {"Ours": "uw:init=-0.5,own_lr=0.0005", "Other": "log"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kind": "tabel"}, "kind is 'tabel'"),
        ({"kind": "drawing"}, "a drawing has no panels"),
        ({"panels": []}, "everything else has some"),
        ({"whta": "x"}, "Unknown entry of experiment paper/table1 'whta'"),
        (
            {"methods": "usul"},
            "Unknown set of methods of experiment paper/table1, panel 1 'usul': did you mean 'usual'",
        ),
        ({"panels": [PANEL, PANEL]}, "two panels have one name"),
        ({"panels": [{"name": "digits"}]}, "paper/table1, panel 1 cannot be used .data is missing"),
        ({"panels": [{**PANEL, "datta": 1}]}, "Unknown entry of experiment paper/table1, panel 1 'datta'"),
        ({"panels": [{**PANEL, "recipe": {"epoch": 1}}]}, "'epoch': did you mean 'epochs'"),
        ({"panels": [{**PANEL, "published": {"dataset": "D"}}]}, "published cannot be used .architecture is missing"),
        ({"panels": [{**PANEL, "reference": "nowhere"}]}, "there is no panel 'nowhere'"),
    ],
)
def test_a_wrong_file_is_refused(entries, message):
    with pytest.raises(IsonomyError, match=message):
        made(**entries)
