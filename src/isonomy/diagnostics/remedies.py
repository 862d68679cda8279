"""What would help: methods are tried on the gradients that were recorded, the cheapest first, and not just praised.

Weights follow from norms and cosines, so a method needs no training to show what it would do with these gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from isonomy.catalogue import build
from isonomy.diagnostics.judged import beginning, excerpt, largest, living, median, others, recent
from isonomy.diagnostics.recording import Recording

# Ours: an unrelated task gets at most 1/5 of the progress of a step of its own from one who pulls five times as hard.
# In our runs the tasks that lost most pulled 0.044 and 0.072 times as hard as the strongest (docs/diagnosis.md).
LEAD = 5.0
STARVED = 1 / LEAD
# Ours: who pulls so hard decides the direction if this share of it is its own; five-fold is less among many tasks.
SHARE = 0.9
# Ours: nobody is harmed who gets half of what K unrelated tasks get from an even step.
HARMED = 0.5
# Ours: the cosine of unrelated gradients is 0 give or take 1/√P, so that a sign alone is a coin's.
UPHILL = -0.1
# Ours: a step from which somebody gets less than a tenth of that is no remedy, ...
STANDSTILL = 0.1
# ... and neither is one from which the worst off gets less than half of what it gets from the best of those tried.
GOOD = 0.5
# Ours: looks that methods are tried on, evenly spaced; a median over more says no more.
LOOKS = 20
# Methods with a closed form or an exact solver, cheapest first; none depends on the order of tasks or on chance.
TRIED = {
    "log": "Balancing the logarithms of the losses",
    "avgnorm": "Dividing every loss by the norm of its gradient",
    "imtl_g": "Taking the direction that has the same angle with every task's gradient",
    "upgrad": "Bending every task's gradient until it harms no other task",
}
# What imtl_g adds to a step of plain summing at the feature of a convolutional network or a transformer with three
# tasks, at most, in per cent: benchmarks/step.md.
COST = 5


@dataclass(frozen=True)
class Remedy:
    """A method that would help.

    Attributes:
        method: Its name.
        trial: The same gradients, balanced by it.
        begins: Whether these are those of the beginning, and not the recent ones.
    """

    method: str
    trial: Recording
    begins: bool = False

    def sentence(self, effect: str) -> str:
        """What to do, what it would do and what it costs.

        Args:
            effect: What would come of it, such as ``"would take that to 50 %"``.
        """
        call = f'{TRIED[self.method]}, `isonomy.build("{self.method}", tasks)`,'
        if self.method == "log":
            return f"{call} costs nothing and {effect}{' if used from the beginning' if self.begins else ''}."
        return f"{call} {effect}; at a shared feature it adds up to {COST} % to a large network's step."


def fair(recording: Recording) -> Tensor:
    """What each task gets of a step, in units of what K unrelated tasks get of an even one, median, shape (T,).

    The cosine of a task's gradient with the step is, to first order, the share it gets of the progress that a step of
    its own and of this length would make. For K orthogonal parts of one length it is 1 / √K.
    """
    present = (~recording.parts.isnan()).sum(1, keepdim=True)
    return median(recording.alignment * present.sqrt())


def lead(recording: Recording) -> Tensor:
    """How many times as long as the longest of the others each task's part is, median, shape (T,)."""
    parts = recording.parts
    return median(parts / largest(others(parts)))


def dominant(recording: Recording) -> int | None:
    """The task that decides the direction at somebody's expense, if there is one."""
    harmed = fair(recording) < HARMED
    for task in ((lead(recording) >= LEAD) & (median(recording.shares) >= SHARE)).nonzero().flatten().tolist():
        if bool(harmed[torch.arange(len(harmed)) != task].any()):
            return int(task)
    return None


def hunger(recording: Recording) -> Tensor:
    """How long each task's part is relative to the lower median of the others', median, shape (T,); NaN for two."""
    parts = recording.parts
    rest = others(parts)
    several = (~rest.isnan()).sum(2) > 1
    return median((parts / rest.nanmedian(2).values).where(several, torch.nan))


def starved(recording: Recording) -> list[int]:
    """Tasks that pull far less than the others and get little of the step, the worst first."""
    part = hunger(recording)
    found = ((part <= STARVED) & (fair(recording) < HARMED)).nonzero().flatten().tolist()
    return sorted(found, key=lambda task: float(part[task]))


def uphill(recording: Recording) -> list[int]:
    """Tasks that the step makes worse, the worst first."""
    alignment = median(recording.alignment)
    found = (alignment < UPHILL).nonzero().flatten().tolist()
    return sorted(found, key=lambda task: float(alignment[task]))


def problems(recording: Recording) -> set[tuple[str, int]]:
    """All of these, by kind and task."""
    first = dominant(recording)
    found = {("starvation", task) for task in starved(recording)} | {("conflict", task) for task in uphill(recording)}
    return found if first is None else found | {("dominance", first)}


def remedy(recording: Recording, kind: str, task: int) -> Remedy | None:
    """The cheapest method that takes a kind of problem away and brings no other.

    Whether a loss's unit is the cause shows at the beginning. Later the task whose loss is large is the one that has
    been learnt, and its gradient has become long in relation to its loss by that alone.

    Args:
        recording: All looks.
        kind: ``"dominance"``, ``"starvation"`` or ``"conflict"``.
        task: Whom it is about.

    Returns:
        It, or None if none of those tried does.
    """
    first, now = living(beginning(recording)), living(recent(recording))
    if (kind, task) in problems(first):
        cure = _cheapest(first, kind)
        if cure is not None and cure.method == "log":
            return replace(cure, begins=len(recording) > 1)
    return _cheapest(now, kind)


def _cheapest(looks: Recording, kind: str) -> Remedy | None:
    """The first of the methods that take a kind of problem away from these looks and do well for everyone."""
    rest = {problem for problem in problems(looks) if problem[0] != kind}
    found = {method: tried(looks, method) for method in TRIED}
    trials = {method: trial for method, trial in found.items() if trial is not None and problems(trial) <= rest}
    least = {method: float(fair(trial).nan_to_num(nan=torch.inf).min()) for method, trial in trials.items()}
    enough = max(GOOD * max(least.values(), default=0.0), STANDSTILL)
    return next((Remedy(method, trials[method]) for method in trials if least[method] >= enough), None)


def tried(recording: Recording, method: str) -> Recording | None:
    """Some of the looks as they would be with another method; None if it cannot work on them."""
    stride = math.ceil(len(recording) / LOOKS)
    some = excerpt(recording, torch.arange(len(recording) - 1, -1, -stride).flip(0))
    raw = replace(some, norms=some.raw_norms, loss_weights=torch.ones_like(some.norms).where(_present(some), torch.nan))
    if method == "log":
        if not bool((raw.losses[_present(raw)] > 0).all()):
            return None
        return replace(raw, norms=raw.norms / raw.losses, loss_weights=1 / raw.losses, weights=raw.loss_weights)
    weights = torch.full_like(raw.norms, torch.nan)
    for look, active, gramian in _gramians(raw):
        weights[look, active] = build(method, len(active)).weights(gramian)
    return None if weights.isnan().all() else replace(raw, weights=weights)


def _present(recording: Recording) -> Tensor:
    return ~(recording.raw_norms.isnan() | recording.weights.isnan())


def _gramians(recording: Recording) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each look's number, the tasks that are there, shape (K,), and up to a factor their gradients' inner products."""
    for look, there in enumerate(_present(recording)):
        active = there.nonzero().flatten()
        norms, cosines = recording.norms[look, active], recording.cosines[look][active][:, active]
        # Means over an epoch in which two tasks have never met have no cosine for them.
        if len(active) and not cosines.isnan().any():
            sizes = norms / norms.max().clamp_min(1e-300)  # whose squares do not overflow
            yield look, active, cosines * sizes * sizes[:, None]
