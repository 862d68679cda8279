"""The verdict in words: who is best, by how much, and what the numbers say about why."""

from __future__ import annotations

from statistics import fmean

from isonomy.bench.options import name_of
from isonomy.bench.progress import number, signed, spread
from isonomy.bench.results import Results, Row, effective_weights
from isonomy.errors import listing

REFERENCE = "ew"


def verdict(results: Results) -> list[str]:
    """Sentences that follow from the measured numbers, the most important first.

    Args:
        results: Of a sweep.
    """
    ranked = results.ranked
    if not ranked:
        why = results.no_delta or "no method has finished all its seeds"
        return [f"There is no verdict: {why}."]
    best = ranked[0]
    plain = next((row for row in ranked if row.name == REFERENCE), None)
    sentences = [_winner(best, plain, results), *_rivals(ranked)]
    if plain is not None:
        sentences += _loser(plain, results)
        if best is not plain:
            sentences += _weights(best, plain, results)
        sentences += _rescuer(best, plain, results)
    return sentences


def _winner(best: Row, plain: Row | None, results: Results) -> str:
    assert best.delta is not None  # as every ranked row has one
    seeds = f"{best.delta.count} seeds" if best.delta.count > 1 else "a single seed, so there is no deviation"
    standing = f"Δp {spread(best.delta, 2, sign=True)} % against single-task training, {seeds}"
    name = name_of(results.plan.data)
    if plain is best:
        return f"Plain summing ({best.title}) is best: {standing}. Balancing does not pay on {name}."
    text = f"{best.title} balances {name} best: {standing}"
    if plain is None or plain.delta is None:
        return f"{text}."
    gain = best.delta.mean - plain.delta.mean
    text += f". That is {gain:.1f} points above plain summing ({spread(plain.delta, 2, sign=True)} %)"
    within = gain <= _deviation(best, plain)
    return text + (", which is within one deviation: these runs do not show that balancing pays." if within else ".")


def _rivals(ranked: list[Row]) -> list[str]:
    best = ranked[0]
    close = [
        row
        for row in ranked[1:]
        if row.delta
        and best.delta
        and best.delta.mean - row.delta.mean <= _deviation(best, row)
        and row.name != REFERENCE
    ]
    if not close or best.delta is None or best.delta.std is None:
        return []
    names = _plain_listing([row.title for row in close])
    return [
        f"{names} {'lies' if len(close) == 1 else 'lie'} within one deviation of it: these runs do not separate them."
    ]


def _deviation(first: Row, second: Row) -> float:
    return max((row.delta.std or 0.0) if row.delta else 0.0 for row in (first, second))


def _loser(plain: Row, results: Results) -> list[str]:
    """Which task plain summing fails, and whose gradient was the largest."""
    if results.single is None:
        return []
    task = min(plain.task_deltas, key=lambda name: plain.task_deltas[name])
    metric = next(entry for entry in results.tasks if entry.name == task).metrics[0]
    now, alone = (row.metrics[task][metric.name].mean for row in (plain, results.single))
    if plain.task_deltas[task] >= 0:
        return [
            f"Under plain summing no task falls behind single-task training; the smallest gain is that of “{task}”."
        ]
    unit = f" {metric.unit}" if metric.unit else ""
    change = signed(plain.task_deltas[task], 1)
    sentences = [
        f"Under plain summing “{task}” loses most: {metric.name} {number(now)}{unit} against {number(alone)}{unit} "
        f"alone ({change} %)."
    ]
    norms = mean_norms(plain)
    largest = max(norms, key=lambda name: norms[name])
    if largest == task:
        sentences.append(f"Its gradient was the largest of all, so what “{task}” suffers from is not its size.")
    elif norms[largest] > 0:
        share = norms[task] / norms[largest]
        sentences.append(
            f"Its gradient at the shared part was {share:.2g} times as long as that of “{largest}”, the longest of all."
        )
    return sentences


def _weights(best: Row, plain: Row, results: Results) -> list[str]:
    """What the best method did for the task that plain summing fails."""
    task = min(plain.task_deltas, key=lambda name: plain.task_deltas[name])
    weights, norms = effective_weights(best), mean_norms(plain)
    other = max((name for name in norms if name != task), key=lambda name: norms[name], default=None)
    if other is None or not weights[other] > 0 or not weights[task] > 0:
        return []
    metric = next(entry for entry in results.tasks if entry.name == task).metrics[0]
    ratio = weights[task] / weights[other]
    unit = f" {metric.unit}" if metric.unit else ""
    return [
        f"{best.title} weighted the gradient of “{task}” {ratio:.3g} times as much as that of “{other}” "
        f"(mean over training), and “{task}” ended at {number(best.metrics[task][metric.name].mean)}{unit}."
    ]


def _rescuer(best: Row, plain: Row, results: Results) -> list[str]:
    """Who helped the task that plain summing fails most, if that is not who is best over all."""
    task = min(plain.task_deltas, key=lambda name: plain.task_deltas[name])
    rescuer = max(results.ranked, key=lambda row: row.task_deltas[task])
    if plain.task_deltas[task] >= 0 or rescuer in (best, plain):
        return []
    metric = next(entry for entry in results.tasks if entry.name == task).metrics[0]
    unit = f" {metric.unit}" if metric.unit else ""
    pays = min(rescuer.task_deltas, key=lambda name: rescuer.task_deltas[name])
    return [
        f"{rescuer.title} brings “{task}” back furthest, to {number(rescuer.metrics[task][metric.name].mean)}{unit}, "
        f"and loses most on “{pays}” ({signed(rescuer.task_deltas[pays], 1)} %)."
    ]


def mean_norms(row: Row) -> dict[str, float]:
    """Norm of each task's raw gradient at the shared part, the mean over epochs and seeds.

    Args:
        row: A method.
    """
    lines = [line["gradient_norms"] for run in row.epochs for line in run]
    return {task: fmean(line[task] for line in lines) for task in lines[0]}


def incomplete(results: Results) -> str | None:
    """A sentence about the runs that are missing, if any are.

    Args:
        results: Of a sweep.
    """
    if not results.missing:
        return None
    count = len(results.missing)
    return (
        f"{count} of {count + len(results.values)} runs {'is' if count == 1 else 'are'} not finished "
        f"({listing(results.missing[:5])}{' and more' if count > 5 else ''}); "
        "a method counts only when all its seeds have."
    )


def _plain_listing(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
