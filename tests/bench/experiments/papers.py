"""An experiment on ``tests.bench.tiny``, and what a paper might print of it."""

from isonomy.bench.experiments import published
from isonomy.bench.experiments.published import Number
from isonomy.bench.experiments.schema import Experiment, Panel, Published

PRINTED = Published("Tiny data", "Net_1")
RECIPE = {"epochs": 2}
METHODS = {"EW": "ew", "Half & half": "fixed:weights=1x2x0.5", "Norms": "avgnorm"}


def number(method, metric, value, std="", architecture="Net_1"):
    return Number("paper/table1", "Tiny data", architecture, method, metric, value, std)


NUMBERS = (
    number("STL", "a_mse", "0.50"),
    number("STL", "Delta_p", "0.00"),
    number("EW", "a_mse", "0.451"),
    number("EW", "Delta_p", "-1.5", "0.2"),
    number("Half & half", "Delta_p", "2.5"),
    number("Norms", "Delta_p", "1.0"),
    number("Norms", "b_lambda", "0.9"),
    number("EW", "time_s_per_iter", "1.201"),
    number("EW", "a_mse_x10", "0.47"),
    number("EW", "a_mse_x10_abs_change", "0.02"),
)


def paper(**changes):
    panels = (
        Panel("plain", "tiny", METHODS, recipe=RECIPE, published=PRINTED),
        Panel(
            "x10",
            "tiny",
            {"EW": "ew"},
            recipe=RECIPE,
            published=PRINTED,
            scales={"a": 10.0},
            suffix="_x10",
            reference="plain",
        ),
    )
    return Experiment(
        **{
            "name": "paper/table1",
            "kind": "table",
            "what": "All",
            "seeds": 2,
            "single": "STL",
            "panels": panels,
            **changes,
        }
    )


def printed(monkeypatch, numbers=NUMBERS):
    monkeypatch.setattr(published, "numbers", lambda: numbers)
