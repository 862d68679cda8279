"""Remedies are what the methods would do with the recorded gradients, and the cheapest that do well."""

import csv
from pathlib import Path

import pytest
import torch

import isonomy
from isonomy.diagnostics import remedies
from isonomy.diagnostics.remedies import COST, TRIED, fair, hunger, lead, remedy, tried
from tests.diagnostics.scenes import orthogonal, pair, seen
from tests.fixtures import tensor

ROOT = Path(__file__).parents[2]
J = tensor([[3.0, 0, 1], [-1, 2, 0], [0.5, 1, -2]])
LOSSES = tensor([2.0, 0.5, 4.0])


@pytest.mark.parametrize("method", TRIED)
def test_a_trial_is_the_method_on_the_gradients_of_the_losses_as_they_are(method):
    recording = seen(J, losses=LOSSES, loss_weights=[5, 2, 0.1], weights=[0.3, 3, 1])
    rows = J / LOSSES[:, None] if method == "log" else J
    weights = torch.ones(3) if method == "log" else isonomy.build(method, 3).weights(J @ J.T)
    parts = weights[:, None] * rows
    step = parts.sum(0)
    trial = tried(recording, method)
    torch.testing.assert_close(trial.parts[0], parts.norm(dim=1).double())
    torch.testing.assert_close(trial.shares[0], parts @ step / (step @ step))
    torch.testing.assert_close(trial.alignment[0], J @ step / J.norm(dim=1) / step.norm())


@pytest.mark.parametrize("method", TRIED)
def test_a_trial_leaves_absent_tasks_out(method):
    partial = J.clone()
    partial[1] = torch.nan
    trial = tried(seen(partial, losses=LOSSES), method)
    alone = tried(seen(J[[0, 2]], losses=LOSSES[[0, 2]]), method)
    assert trial.parts[0, 1].isnan()
    torch.testing.assert_close(trial.shares[0, [0, 2]], alone.shares[0])


def test_a_logarithm_is_not_tried_where_there_is_none():
    for losses in ([1, -1, 1], [1, 0, 1], [1, torch.nan, 1]):
        assert tried(seen(J, losses=losses), "log") is None


def test_means_without_a_cosine_are_not_tried():
    recording = seen(J)
    recording.cosines[0, 0, 1] = recording.cosines[0, 1, 0] = torch.nan
    assert tried(recording, "avgnorm") is None


def test_many_looks_are_sampled_up_to_the_last():
    recording = seen(J * torch.arange(1.0, 1001)[:, None, None])
    trial = tried(recording, "avgnorm")
    assert len(trial) == remedies.LOOKS
    assert trial.steps[-1] == recording.steps[-1]


def test_lead_hunger_and_fairness_by_hand():
    recording = seen(orthogonal(8, 2, 1))
    assert lead(recording).tolist() == [4, 0.25, 0.125]
    assert hunger(recording).tolist() == [8, 2, 0.5]
    torch.testing.assert_close(fair(recording), tensor([8, 2, 1]) / 69**0.5 * 3**0.5)
    assert hunger(seen(orthogonal(8, 2))).isnan().all()
    assert lead(seen([[1.0]])).isnan().all()


@pytest.mark.parametrize(
    ("J", "losses", "kind", "task", "method"),
    [
        (orthogonal(100, 1), [100, 1], "dominance", 0, "log"),
        (orthogonal(100, 1), [1, 1], "dominance", 0, "avgnorm"),
        (orthogonal(1, 1, 0.01), [1, 1, 0.01], "starvation", 2, "log"),
        (orthogonal(1, 1, 0.01), [1, 1, 1], "starvation", 2, "avgnorm"),
        (pair(-0.6, 4, 1), [4, 1], "conflict", 1, "log"),
        (pair(-0.6, 4, 1), [1, 1], "conflict", 1, "avgnorm"),
        ([[1, 0, 0], [1, 0.1, 0], [-0.8, 0, 0.6]], [1, 1, 1], "conflict", 2, "imtl_g"),
        (pair(-1, 40, 1), [40, 1], "dominance", 0, None),
        # Under the logarithm 'c' would pull 0.19 times as hard as the others, who leave each other little.
        ([[1, 0, 0], [-0.6, 0.8, 0], [0, 0, 0.01]], [1, 1, 1 / 19], "starvation", 2, "avgnorm"),
    ],
)
def test_the_cheapest_that_helps_is_taken(J, losses, kind, task, method):
    found = remedy(seen(J, losses=losses), kind, task)
    assert (found and found.method) == method


def test_what_takes_one_problem_away_must_bring_no_other():
    # Two tasks that agree would turn on the one that dominates as soon as all are equally strong.
    J = tensor([[10, 0, 0], [-0.8, 0.6, 0], [-0.8, 0.6, 0.1]])
    assert isonomy.diagnostics.remedies.problems(tried(seen(J), "avgnorm"))
    assert remedy(seen(J), "dominance", 0).method == "imtl_g"


def test_a_method_that_barely_passes_is_passed_over():
    # The logarithm would leave a lead of 4, which is no finding; the worst off would get half of what is possible.
    recording = seen(orthogonal(80, 1), losses=[20, 1])
    assert not remedies.problems(tried(recording, "log"))
    assert remedy(recording, "dominance", 0).method == "avgnorm"


def test_forty_tasks_and_a_thousand_looks_are_judged_at_once():
    torch.manual_seed(0)
    J = torch.randn(1000, 40, 60, dtype=torch.float64) * torch.logspace(0, -3, 40, dtype=torch.float64)[:, None]
    assert isonomy.diagnostics.findings(seen(J))


def test_what_a_remedy_costs_was_measured():
    with (ROOT / "benchmarks" / "step.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["tasks"] == "3" and row["side"] == "features"]
    ratios = [
        float(row["ratio"])
        for row in rows
        if (row["solver"], row["method"]) == ("Isonomy", "imtl_g") and row["model"] in ("conv", "vit")
    ]
    assert len(ratios) == 2
    assert round(100 * (max(ratios) - 1)) == COST
