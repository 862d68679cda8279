"""Whether what papers claim holds on the embedded data: one function a claim, from the runs of its panels.

A claim is judged by rules that stand here, before anything is measured; one that does not hold is reported as such.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

from scipy.stats import spearmanr  # type: ignore[import-untyped]

from isonomy.bench.delta import Spread, Values
from isonomy.bench.progress import signed, spread
from isonomy.bench.report.verdict import mean_norms
from isonomy.bench.results import Results, Row

# What two scores have to differ by, in points of Δp, to be called different where seeds do not say more.
CLOSE = 1.0
# Step times relative to plain summing: "free", "cheap".
FREE, CHEAP = 1.1, 1.5


class Verdict(NamedTuple):
    """What became of a claim.

    Attributes:
        held: Whether it held in these runs; None where they cannot tell.
        measured: The figures, a sentence each.
    """

    held: bool | None
    measured: list[str]


class Runs(NamedTuple):
    """A panel's runs.

    Attributes:
        results: Of the sweep.
        methods: For each method's name in the claim that in the sweep.
    """

    results: Results
    methods: Mapping[str, str]

    def row(self, name: str) -> Row:
        """A method's row."""
        found = self.results.row(self.methods[name])
        assert found is not None  # as a claim is judged when all its runs are finished
        return found

    def delta(self, name: str) -> Spread:
        """A method's Δp."""
        found = self.row(name).delta
        assert found is not None  # as single-task networks are in every sweep
        return found

    def runs(self, name: str) -> list[Values]:
        """A method's test metrics, seed by seed."""
        return [self.results.values[self.methods[name], seed] for seed in range(self.results.plan.seeds)]


def loss_scale(panels: Mapping[str, Runs]) -> Verdict:
    """Invariant: metrics move by no more, when a loss is ten times as large, than they do from seed to seed."""
    plain, scaled = panels["plain"], panels["times-ten"]
    if plain.results.plan.seeds == 1:
        return Verdict(None, ["One seed does not say how much metrics move from seed to seed: it takes two or more."])
    sentences, moves = [], {}
    for name in plain.methods:
        moved = fmean(_distance(*pair) for pair in zip(plain.runs(name), scaled.runs(name), strict=True))
        noise = fmean(_distance(*pair) for pair in combinations(plain.runs(name), 2))
        moves[name] = moved > noise
        sentences.append(
            f"{name}: metrics moved by {moved:.2f} %; from seed to seed by {noise:.2f} %. "
            f"Δp {spread(plain.delta(name), 2, sign=True)} became {spread(scaled.delta(name), 2, sign=True)} %."
        )
    return Verdict(moves == {"EW": True, "UW": True, "log": False, "IMTL-L": False}, sentences)


def _distance(one: Values, other: Values) -> float:
    """Mean relative difference of the metrics, in percent."""
    return 100 * fmean(
        fmean(abs(other[task][name] - value) / abs(value) for name, value in metrics.items())
        for task, metrics in one.items()
    )


def halves(panels: Mapping[str, Runs]) -> Verdict:
    """Each half above plain summing and both together above either, on every data set, by the means over seeds."""
    held, sentences = [], []
    for where, runs in panels.items():
        mean = {name: runs.delta(name).mean for name in runs.methods}
        held.append(mean["EW"] < min(mean["log"], mean["max-norm"]) and max(mean.values()) == mean["DB-MTL"])
        sentences.append(f"{where}: {_deltas(runs)}: it {'held' if held[-1] else 'did not hold'}.")
    return Verdict(all(held), sentences)


def alpha(panels: Mapping[str, Runs]) -> Verdict:
    """The largest norm has the highest mean Δp, on every data set."""
    best = {where: max(runs.methods, key=lambda name: runs.delta(name).mean) for where, runs in panels.items()}
    sentences = [f"{where}: {_deltas(runs)}: best with {best[where]}." for where, runs in panels.items()]
    return Verdict(set(best.values()) == {"max"}, sentences)


def beta(panels: Mapping[str, Runs]) -> Verdict:
    """Every decaying factor at least as good as the constant one of its size, and the best of them above none."""
    held, sentences = [], []
    for where, runs in panels.items():
        mean = {name: runs.delta(name).mean for name in runs.methods}
        decayed = {name: name.removesuffix("/√k") for name in mean if name.endswith("/√k")}
        held.append(all(mean[name] >= mean[constant] for name, constant in decayed.items()))
        held.append(max(mean[name] for name in decayed) > mean["0"])
        sentences.append(f"{where}: {_deltas(runs)}.")
    return Verdict(all(held), sentences)


def search(panels: Mapping[str, Runs]) -> Verdict:
    """AvgNorm less than one point or deviation below the search, in less than half the time."""
    held, sentences = [], []
    for where, runs in panels.items():
        own, found = runs.delta("AvgNorm"), runs.delta("grid search")
        within = max(CLOSE, own.std or 0.0, found.std or 0.0)
        ratio = _seconds(runs.row("AvgNorm")) / _seconds(runs.row("grid search"))
        held.append(own.mean > found.mean - within and ratio < 0.5)
        sentences.append(f"{where}: {_deltas(runs)}; AvgNorm took {ratio:.2f} of the search's time.")
    return Verdict(all(held), sentences)


def _seconds(row: Row) -> float:
    return sum(float(line["seconds"]) for run in row.epochs for line in run[-1].get("trials", run))


def norms(panels: Mapping[str, Runs]) -> Verdict:
    """Over the tasks, the change against single-task training goes up with the gradient's norm and less with cosines.

    Both are rank correlations, data set by data set, and their means over data sets are compared. A task's cosine is
    the mean with all others.
    """
    by_norm, by_cosine, sentences = [], [], []
    for where, runs in panels.items():
        row, tasks = runs.row("EW"), [task.name for task in runs.results.tasks]
        change = [row.task_deltas[task] for task in tasks]
        length = mean_norms(row)
        lines = [line for run in row.epochs for line in run]
        cosine = [
            fmean(line["cosines"][i][j] for line in lines for j in range(len(tasks)) if j != i)
            for i in range(len(tasks))
        ]
        by_norm.append(float(spearmanr([length[task] for task in tasks], change).statistic))
        by_cosine.append(float(spearmanr(cosine, change).statistic))
        worst, first = min(zip(change, tasks, strict=True)), max(tasks, key=lambda task: length[task])
        share = length[worst[1]] / length[first]
        sentences.append(
            f"{where}: rank correlation of the change with norms {by_norm[-1]:+.2f}, with cosines "
            f"{by_cosine[-1]:+.2f}; {worst[1]} loses most ({signed(worst[0], 1)} %), with a gradient {share:.2g} times "
            f"as long as the longest, that of {first}."
        )
    sentences.append(f"Mean: norms {fmean(by_norm):+.2f}, cosines {fmean(by_cosine):+.2f}.")
    return Verdict(fmean(by_norm) > 0 and fmean(by_norm) > abs(fmean(by_cosine)), sentences)


def cost(panels: Mapping[str, Runs]) -> Verdict:
    """Step times: losses up to 1.1 times plain summing's, a feature up to 1.5, the parameters more than a feature."""
    held, sentences = [], []
    for where, runs in panels.items():
        ratio = {name: math.nan if (each := runs.row(name).ratio) is None else each for name in runs.methods}
        losses, feature = (ratio["UW"], ratio["IMTL-L"]), (ratio["IMTL-G"], ratio["IMTL"])
        exact = (ratio["IMTL-G (exact)"], ratio["DB-MTL"])
        held += [each <= FREE for each in losses] + [each <= CHEAP for each in feature]
        held += [more > each for more in exact for each in feature]
        shown = ", ".join(f"{name} {value:.2f}" for name, value in ratio.items())
        sentences.append(f"{where}, {len(runs.results.tasks)} tasks, a step relative to plain summing: {shown}.")
    return Verdict(all(held), sentences)


def _deltas(runs: Runs) -> str:
    return "Δp " + ", ".join(f"{name} {spread(runs.delta(name), 2, sign=True)} %" for name in runs.methods)


CHECKS: dict[str, Callable[[Mapping[str, Runs]], Verdict]] = {
    check.__name__: check for check in (loss_scale, halves, alpha, beta, search, norms, cost)
}
