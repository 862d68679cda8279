"""The judges of claims, on runs that are made up so that the answer is known."""

from types import SimpleNamespace

import pytest

from isonomy.bench.delta import Spread
from isonomy.bench.experiments import catalogue, claims
from isonomy.bench.experiments.claims import Runs
from isonomy.bench.results import Row

SEEDS = 3


def runs(methods, deltas=None, values=None, ratios=None, lines=None, changes=None):
    """A panel whose methods have these Δp, metrics by seed, step times, lines and changes of each task."""
    rows = []
    for name in methods:
        row = Row(name, name, {})
        if deltas:
            row.delta = Spread.of([deltas[name] + step for step in (-0.1, 0.0, 0.1)])
        row.ratio = ratios[name] if ratios else None
        row.epochs = lines[name] if lines else []
        row.task_deltas = changes or {}
        rows.append(row)
    found = {(name, seed): {"one": {"score": values[name][seed]}} for name in (values or {}) for seed in range(SEEDS)}
    results = SimpleNamespace(
        plan=SimpleNamespace(seeds=SEEDS),
        tasks=[SimpleNamespace(name=name) for name in (changes or {"one": 0.0})],
        values=found,
        row=lambda name: next(row for row in rows if row.name == name),
    )
    return Runs(results, {name: name for name in methods})


def scale(moved):
    names = ["EW", "UW", "log", "IMTL-L"]
    plain = {name: [100.0, 101.0, 102.0] for name in names}
    scaled = {name: [value * (1 + moved[name]) for value in plain[name]] for name in names}
    deltas = dict.fromkeys(names, 0.0)
    return {"plain": runs(names, deltas, plain), "times-ten": runs(names, deltas, scaled)}


def test_a_method_is_blind_to_a_scale_when_seeds_move_it_more():
    held, sentences = claims.loss_scale(scale({"EW": 0.3, "UW": 0.1, "log": 0.0, "IMTL-L": 0.01}))
    assert held
    assert sentences[0].startswith("EW: metrics moved by 30.00 %; from seed to seed by 1.33 %.")
    assert not claims.loss_scale(scale({"EW": 0.3, "UW": 0.01, "log": 0.0, "IMTL-L": 0.01})).held
    assert not claims.loss_scale(scale({"EW": 0.3, "UW": 0.1, "log": 0.1, "IMTL-L": 0.01})).held


def test_one_seed_cannot_tell_of_scales():
    panels = scale({"EW": 0.3, "UW": 0.1, "log": 0.0, "IMTL-L": 0.01})
    for panel in panels.values():
        panel.results.plan.seeds = 1
    assert claims.loss_scale(panels).held is None


@pytest.mark.parametrize(
    ("deltas", "held"),
    [((-5, -2, -3, -1), True), ((-5, -2, -6, -1), False), ((-5, -2, -3, -2.5), False), ((-5, -6, -3, -1), False)],
)
def test_halves_help_when_each_beats_nothing_and_both_beat_each(deltas, held):
    names = ["EW", "log", "max-norm", "DB-MTL"]
    panel = runs(names, dict(zip(names, deltas, strict=True)))
    assert claims.halves({"digits": panel}).held == held
    good = runs(names, dict(zip(names, (-5, -2, -3, -1), strict=True)))
    verdict = claims.halves({"digits": panel, "rooms": good})
    assert verdict.held == held  # everywhere, or not at all
    assert verdict.measured[1].endswith("it held.")


def test_the_largest_norm_has_to_win_everywhere():
    names = ["max", "min", "mean", "median"]
    best = runs(names, {"max": 1.0, "min": 0.0, "mean": 0.5, "median": 0.9})
    other = runs(names, {"max": 1.0, "min": 0.0, "mean": 1.5, "median": 0.9})
    assert claims.alpha({"digits": best}).held
    verdict = claims.alpha({"digits": best, "rooms": other})
    assert not verdict.held
    assert verdict.measured[1].endswith("best with mean.")


@pytest.mark.parametrize(
    ("deltas", "held"),
    [
        ({"0": 0.0, "0.1/√k": 1.0, "0.9/√k": 0.5, "0.1": 0.9, "0.9": -2.0}, True),
        ({"0": 0.0, "0.1/√k": 0.8, "0.9/√k": 0.5, "0.1": 0.9, "0.9": -2.0}, False),
        ({"0": 2.0, "0.1/√k": 1.0, "0.9/√k": 0.5, "0.1": 0.9, "0.9": -2.0}, False),
    ],
)
def test_a_decaying_factor_has_to_beat_its_constant_and_none(deltas, held):
    assert claims.beta({"domains": runs(list(deltas), deltas)}).held == held


@pytest.mark.parametrize(
    ("own", "seconds", "held"), [(-3.5, 2.0, True), (-4.5, 2.0, False), (-3.5, 8.0, False), (0.0, 2.0, True)]
)
def test_close_to_a_search_means_a_point_and_half_its_time(own, seconds, held):
    lines = {
        "EW": [[{"seconds": 1.0}]],
        "AvgNorm": [[{"seconds": seconds / 2}, {"seconds": seconds / 2}]],
        "grid search": [[{"seconds": 5.0, "trials": [{"seconds": 5.0}, {"seconds": 5.0}]}]],
    }
    panel = runs(list(lines), {"EW": -9.0, "AvgNorm": own, "grid search": -3.0}, lines=lines)
    verdict = claims.search({"rooms": panel})
    assert verdict.held == held
    assert f"AvgNorm took {seconds / 10:.2f} of the search's time." in verdict.measured[0]


def test_imbalance_goes_with_norms_or_it_does_not():
    changes = {"a": -1.0, "b": -5.0, "c": -20.0}
    angles = [[1.0, 0.1, 0.0], [0.1, 1.0, -0.1], [0.0, -0.1, 1.0]]
    line = {"gradient_norms": {"a": 3.0, "b": 2.0, "c": 0.1}, "cosines": angles}
    panel = runs(["EW"], lines={"EW": [[line], [line]]}, changes=changes)
    verdict = claims.norms({"rooms": panel})
    # Mean cosines: 0.05, 0, −0.05 fall as the changes do, so both correlations are 1 and norms are no better.
    assert not verdict.held
    assert "norms +1.00, with cosines +1.00; c loses most (−20.0 %)" in verdict.measured[0]
    assert "a gradient 0.033 times as long as the longest, that of a." in verdict.measured[0]
    turned = {**line, "cosines": [[1.0, 0.3, -0.2], [0.3, 1.0, 0.0], [-0.2, 0.0, 1.0]]}
    assert claims.norms({"rooms": runs(["EW"], lines={"EW": [[turned]]}, changes=changes)}).held
    upside = {**turned, "gradient_norms": {"a": 0.1, "b": 2.0, "c": 3.0}}
    assert not claims.norms({"rooms": runs(["EW"], lines={"EW": [[upside]]}, changes=changes)}).held


def test_costs_are_ordered_and_bounded():
    ratio = {"EW": 1.0, "UW": 1.02, "IMTL-L": 1.03, "IMTL-G": 1.3, "IMTL": 1.35, "IMTL-G (exact)": 2.5, "DB-MTL": 2.6}
    assert claims.cost({"rooms": runs(list(ratio), ratios=ratio)}).held
    for name, value in (("UW", 1.2), ("IMTL", 1.6), ("DB-MTL", 1.2)):
        assert not claims.cost({"rooms": runs(list(ratio), ratios={**ratio, name: value})}).held


def test_every_claim_has_a_judge_and_its_methods():
    found = catalogue.find("claims/*")
    assert {each.check for each in found} == set(claims.CHECKS)
    for each in found:
        assert each.kind == "claim"
        assert each.claim
