"""Findings of trainings in which it is known what is wrong, of healthy ones, and of those that took the advice."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from isonomy import IsonomyError
from isonomy.diagnostics import Finding, findings, judged, probe, remedies, rules
from isonomy.diagnostics.findings import summary
from isonomy.diagnostics.recording import Recording
from tests.diagnostics.scenes import NAMES, Regressions, orthogonal, seen, train, tug

ADVICE = re.compile(r'isonomy\.build\("([a-z_+]+)", tasks(?:, beta=([\d.]+), decay=([\d.]+))?\)')


def advised(finding):
    """The method and options that a remedy names, as a user would copy them."""
    method, beta, decay = ADVICE.search(finding.remedy).groups()
    return {"method": method} | ({"beta": float(beta), "decay": float(decay)} if beta else {})


def nothing(recording):
    (sentence,) = summary(recording)
    return findings(recording) == [] and sentence.startswith("Nothing is wrong")


PULLS = {"pulls": (40.0, 1.0, 1.0), "lr": 0.003}
UNITS = {"scales": (100.0, 1.0, 1.0), "lr": 0.001}
STARVED = {"pulls": (1.0, 1.0, 0.01)}
SMALL = {"scales": (1.0, 1.0, 0.01)}
JUMPY = {"rows": 1, "noise": 3.0, "lr": 0.002}


@pytest.mark.parametrize(
    ("known", "kind", "task", "remedied"),
    [
        (PULLS, "dominance", "a", {}),
        (UNITS, "scale_mismatch", "a", {"lr": 0.05}),
        (STARVED, "starvation", "c", {}),
        (SMALL, "starvation", "c", {}),
    ],
    ids=["dominance", "scale", "starvation", "small"],
)
def test_what_is_wrong_is_found_and_the_advice_cures_it(known, kind, task, remedied):
    (found,) = train(**known).findings()
    assert (found.kind, found.tasks[0]) == (kind, task)
    advice = advised(found)
    assert advice["method"] == ("log" if "scales" in known else "avgnorm")
    assert nothing(train(**known | remedied, **advice).recording)


def test_noise_is_found_and_the_advice_cures_it():
    (found,) = train(**JUMPY).findings()
    assert found.kind == "noise"
    assert nothing(train(**JUMPY, **advised(found), at="parameters").recording)
    assert nothing(train(**JUMPY | {"rows": 32}).recording)


@pytest.mark.parametrize(
    ("known", "tasks", "method"),
    [
        ({}, ("a", "b"), "log"),
        ({"directions": ((1, 0), (1, 0.1), (-0.8, 0.6)), "scales": (1, 1, 1)}, ("a", "c"), "imtl_g"),
    ],
    ids=["pair", "two to one"],
)
def test_conflict_is_found_and_the_advice_cures_it(known, tasks, method):
    (found,) = tug(**known).findings()
    assert (found.kind, found.tasks) == ("conflict", tasks)
    assert advised(found) == {"method": method}
    assert not [left for left in tug(**known, method=method).findings() if "worse" in left.text]


def test_tasks_that_want_the_opposite_are_hopeless():
    found = tug(directions=((1, 0), (-1, 0))).findings()
    assert [finding.kind for finding in found] == ["conflict"]
    assert "No weighting of these gradients serves all tasks" in found[0].remedy


def test_a_dead_head_is_found_and_no_balancer_hides_it():
    def kill(net):
        net.heads[1] = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
        nn.init.constant_(net.heads[1][0].bias, -1e3)

    for method in ("ew", "log", "imtl_g"):
        (found,) = train(method, prepare=kill).findings()
        assert (found.kind, found.tasks) == ("dead_head", ("b",))


@pytest.mark.parametrize("steps", [16, 24])
def test_an_exploding_loss_is_found(steps):
    found, *effects = train(rates=(1.0, 1000.0, 1.0), lr=0.001, steps=steps, every=2).findings()
    assert (found.kind, found.tasks) == ("exploding_loss", ("b",))
    assert "that of its head first" in found.remedy
    assert [effect.kind for effect in effects] == ["dominance"]


def test_losses_that_are_not_finite_are_found():
    def spoil(step, losses):
        return losses | {"b": losses["b"] * float("nan")} if step % 10 == 3 else losses

    (found,) = train(change=spoil, nonfinite="skip").findings()
    assert found.kind == "nonfinite"
    assert found.evidence["skipped"] == pytest.approx(0.1, abs=0.02)


def test_a_network_that_is_lost_for_good_is_found():
    def spoil(step, losses):
        return losses | {"b": losses["b"] * float("nan")} if step > 100 else losses

    (found,) = train(change=spoil, nonfinite="skip").findings()
    assert found.kind == "nonfinite"
    assert found.evidence["skipped"] > 0.5


@pytest.mark.parametrize("method", ["ew", "log", "imtl_g", "graddrop"])
def test_a_healthy_training_is_healthy(method):
    assert nothing(train(method).recording)


def test_no_false_alarm_on_unrelated_tasks():
    alarms = 0
    for seed in range(20):
        draws = torch.Generator().manual_seed(seed)
        tasks, looks = 2 + seed % 7, (1, 5, 40)[seed % 3]
        norms = torch.rand(tasks, generator=draws) + 0.5
        J = torch.randn(looks, tasks, 500, generator=draws, dtype=torch.float64) * norms[:, None]
        alarms += len(findings(seen(J)))
    assert alarms == 0


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("tasks", [2, 5])
def test_no_false_alarm_in_healthy_trainings(seed, tasks):
    ones = (1.0,) * tasks
    assert train(tasks=tasks, seed=seed, scales=ones, pulls=ones, rates=ones, steps=100).findings() == []


def test_the_most_important_comes_first():
    J = orthogonal(100, 1, 1, 0).repeat(40, 1, 1)
    J[:, 1] *= 10.0 ** (torch.arange(40) % 2)[:, None]
    losses = torch.ones(40, 4, dtype=torch.float64)
    losses[30:, 2] = 50
    losses[35, 1] = torch.inf
    kinds = [finding.kind for finding in findings(seen(J, losses=losses))]
    assert kinds == ["nonfinite", "exploding_loss", "dead_head", "dominance", "starvation", "noise"]


@pytest.mark.parametrize("known", [PULLS, UNITS, STARVED])
def test_tasks_in_another_order_are_the_same_tasks(known):
    recording = train(**known).recording
    order = torch.tensor([2, 0, 1])
    turned = replace(
        recording,
        tasks=tuple(recording.tasks[i] for i in order),
        **{name: getattr(recording, name)[:, order] for name in ("losses", "loss_weights", "weights", "norms")},
        cosines=recording.cosines[:, order][:, :, order],
    )
    assert [str(finding) for finding in findings(turned)] == [str(finding) for finding in findings(recording)]
    assert findings(turned)[0].evidence == pytest.approx(findings(recording)[0].evidence)


def test_a_probe_of_one_look_is_enough():
    net = Regressions()
    x, targets = net.batch(32)

    def losses(model):
        z = model.trunk(x)
        return {
            name: scale * (head(z).squeeze(1) - target).square().mean()
            for name, head, target, scale in zip(NAMES, model.heads, targets.T, (100, 1, 1), strict=False)
        }

    (found,) = findings(Recording.of([probe(net, losses)]))
    assert (found.kind, found.tasks[0], advised(found)) == ("scale_mismatch", "a", {"method": "log"})


def test_a_summary_is_the_findings_or_that_there_are_none():
    recording = seen(orthogonal(41, 1))
    (found,) = findings(recording)
    assert summary(recording) == [f"{found.text} {found.remedy}"]
    assert summary(seen(orthogonal(3, 1), 40)) == [
        "Nothing is wrong (20 looks from step 200 to 390): the strongest task, 'a', pulls 3 times as hard as the next, "
        "and the lowest cosine of a gradient with the step is 0.32, that of 'b'."
    ]


@pytest.mark.parametrize(
    ("recording", "part"),
    [
        (seen(orthogonal(1, 1), weights=torch.nan), "the method has no weights"),
        (seen([[1.0]]), "the one task has a gradient"),
        (seen([[torch.nan] * 2] * 2), "gradients were not measured"),
        (seen([[[1.0, 0], [torch.nan] * 2], [[torch.nan] * 2, [1.0, 0]]]), "no two were there at once"),
    ],
)
def test_nothing_is_claimed_that_was_not_seen(recording, part):
    (sentence,) = summary(recording)
    assert sentence.startswith("Nothing is wrong")
    assert part in sentence


@pytest.mark.parametrize("seed", range(12))
def test_any_numbers_can_be_judged(seed):
    draws = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(*shape, generator=draws, dtype=torch.float64)

    tasks, looks = 1 + seed % 6, (1, 4, 30)[seed % 3]
    J = drawn(looks, tasks, 1 + seed % 4) * 10 ** (40 * drawn(looks, tasks, 1))
    J[torch.rand(looks, tasks, generator=draws) < 0.1] = torch.nan
    J[torch.rand(looks, tasks, generator=draws) < 0.1] = 0
    recording = seen(J, losses=10 ** (5 * drawn(looks, tasks)), weights=drawn(looks, tasks))
    recording.norms[torch.rand(looks, tasks, generator=draws) < 0.1] = torch.inf
    recording.losses[torch.rand(looks, tasks, generator=draws) < 0.1] = torch.nan
    sentences = summary(recording)
    assert sentences
    assert not re.search(r"\bnan\b|\binf\b|tensor", " ".join(sentences))


def test_a_recording_without_looks_cannot_be_judged():
    with pytest.raises(IsonomyError, match="has no looks"):
        findings(Recording.read(["a"], []))


PAGE = (Path(__file__).parents[2] / "docs" / "diagnosis.md").read_text()
THRESHOLDS = {
    "nonfinite": [f"{100 * rules.SKIPPED:g} %"],
    "exploding_loss": [f"{rules.EXPLODED:g} times", f"the last {rules.FEW}", "{} to {}".format(*rules.LAST)],
    "dead_head": ["1e-8", "nine\nlooks of ten"],
    "dominance": [f"{remedies.LEAD:g} times", f"{remedies.SHARE:g}"],
    "scale_mismatch": [f"{rules.UNITS:g} times"],
    "starvation": [f"{remedies.STARVED:g} times"],
    "conflict": [f"{remedies.UPHILL:g}".replace("-", "−"), f"{rules.OPPOSED:g}".replace("-", "−")],
    "noise": [f"**Threshold**: {rules.JUMP:g}", f"{rules.JUMPS} jumps"],
}


def test_the_page_has_every_rule_with_its_thresholds():
    assert set(re.findall(r'``"([a-z_]+)"``', Finding.__doc__)) == set(THRESHOLDS)
    assert (judged.DEAD, judged.NEARLY_ALL, judged.FEWEST, remedies.HARMED) == (1e-8, 0.9, 5, 0.5)  # in words there
    sections = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", PAGE, flags=re.DOTALL | re.MULTILINE))
    assert set(sections) == set(THRESHOLDS)
    for kind, numbers in THRESHOLDS.items():
        for number in numbers:
            assert number in sections[kind], f"{kind}: {number}"
    assert f"at most {remedies.LOOKS} looks" in PAGE


def test_the_example_of_the_page_is_what_is_said():
    quoted = " ".join(re.findall(r"^> (.*)$", PAGE, flags=re.MULTILINE))
    recording = replace(seen(orthogonal(1, 41)), tasks=("seg", "depth"))
    assert summary(recording) == [quoted]
