"""The rules: what is wrong with a training, why one may say so, and what helps. docs/diagnosis.md is their text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from isonomy.diagnostics import remedies
from isonomy.diagnostics.finding import Finding, named, number, percent, verb
from isonomy.diagnostics.judged import FEWEST, beginning, dead, finite, living, median, recent, relative
from isonomy.diagnostics.recording import Recording

# Ours: a GradScaler that doubles its scale every 2000 steps skips one step in 2000, and that is as it should be.
SKIPPED = 0.01
# Ours: the loss is ten times its best, and not because its best was a rounding error: a tenth of its start is reached.
EXPLODED = 10.0
# Ours: in so many last looks, from five to ten, since that of a single sample is so in every other look; of fewer than
# ten looks in the last three, if it is ten times all that came before, too.
FEW, LAST = 3, (5, 10)
# Ours: losses that begin ten-fold apart, and would be balanced by a logarithm, differ in unit. (IMTL, Table 1,
# multiplies a loss by ten.)
UNITS = 10.0
# At 120 degrees two even parts get half of what either would get by itself; PCGrad's 90 degrees is where a coin falls.
OPPOSED = -0.5
# Ours: a norm that typically doubles or halves between looks says less of the task than of the batch ...
JUMP = 2.0
# ... where so many jumps were seen.
JUMPS = 8

Rule = Callable[[Recording], Iterator[Finding]]

_CAUSES = (
    'Look for a division by 0, a logarithm of 0, an empty mask or float16 without `grad_scaler=`; `nonfinite="raise"` '
    "stops at the first and names its task."
)
_HOPELESS = (
    f"No weighting of these gradients serves all tasks ({', '.join(remedies.TRIED)} were tried on them): give the "
    "tasks more layers of their own, or train them apart."
)


def nonfinite(recording: Recording) -> Iterator[Finding]:
    """Steps that were skipped, and losses or gradients that are not finite."""
    now = recent(recording)
    known = recording.losses.isfinite().any(0)
    nowhere = now.losses.isnan().all(1, keepdim=True)  # a balanced NaN has a weight of NaN, like a task that is absent
    there = ~now.loss_weights.isnan() | nowhere
    measured = now.norms.isfinite().any(1, keepdim=True)
    bad = (there & known & ~now.losses.isfinite()) | now.norms.isinf() | (there & measured & now.norms.isnan())
    tasks = _names(now, bad.any(0).nonzero().flatten().tolist())
    if tasks:
        looks = int(bad.any(1).sum())
        have = f"{named(tasks)} {verb(tasks, 'has', 'have')}"
        text = f"{have} a loss or gradient that is not finite at {looks} of {len(now)} looks."
        yield Finding("nonfinite", tasks, text, _CAUSES, {"looks": looks / len(now)})
    skipped = float(now.skipped.sum())
    before = recording.steps[-len(now) - 1] if len(recording) > len(now) else now.steps[0] - 1
    share = skipped / (float(now.steps[-1] - before) + skipped)
    if share >= SKIPPED:
        text = f"{percent(share)} of the steps were skipped for a loss or gradient that is not finite."
        yield Finding("nonfinite", (), text, _CAUSES, {"skipped": share})


def exploding_loss(recording: Recording) -> Iterator[Finding]:
    """Losses that were far lower before."""
    if len(recording) < FEWEST:
        return
    losses, few = finite(recording.losses), len(recording) < 2 * LAST[0]
    window = FEW if few else min(max(LAST[0], len(recording) // 4), LAST[1])
    running = losses.unfold(0, window, 1).nanmedian(2).values
    best, where = running.nan_to_num(nan=torch.inf).min(0)
    ratio = running[-1] / best
    risen = ~(losses[-window:] < EXPLODED * best).any(0) & (running[-1] >= running[0] / EXPLODED)
    risen &= (ratio >= EXPLODED) & ~(losses <= 0).any(0)
    if few:
        risen &= losses[-window:].amin(0) >= EXPLODED * losses[:-window].amax(0)
    tasks = [task for task in ratio.argsort(descending=True).tolist() if risen[task]]
    for task in tasks:
        name, step = recording.tasks[task], int(recording.steps[where[task] + window // 2])
        text = (
            f"The loss of {name!r} is {number(ratio[task])} times its best: {number(running[-1, task])} after "
            f"{number(best[task])} about {recording.unit} {step}."
        )
        cure = "Lower the learning rate, that of its head first, or clip its gradients."
        if len(tasks) > 1:
            cure = "Lower the learning rate or clip gradients: other losses rise as well."
        yield Finding("exploding_loss", (name,), text, cure, {"ratio": float(ratio[task])})


def dead_head(recording: Recording) -> Iterator[Finding]:
    """Tasks without a gradient."""
    now = recent(recording)
    none = dead(now)
    tasks = _names(now, none.nonzero().flatten().tolist())
    if not tasks:
        return
    losses = [number(loss) for loss in median(finite(now.losses))[none].tolist() if not math.isnan(loss)]
    level = f", with {verb(losses, 'a loss', 'losses')} of {' and '.join(losses)}" if 0 < len(losses) < 3 else ""
    text = (
        f"{named(tasks)} {verb(tasks, 'has', 'have')} no gradient at {now.place}{level}: "
        f"{verb(tasks, 'it teaches', 'they teach')} the network nothing, whatever the weights."
    )
    cure = (
        f"Look at {verb(tasks, 'its head', 'their heads')}: a ReLU that never fires, a saturated output, a frozen or "
        "detached layer, labels that are all ignored."
    )
    yield Finding("dead_head", tasks, text, cure, {"relative_norm": float(median(relative(now))[none].max())})


def dominance(recording: Recording) -> Iterator[Finding]:
    """One task that decides the direction, because of its unit or otherwise."""
    now = living(recent(recording))
    first = remedies.dominant(now)
    if first is None:
        return
    itself = torch.arange(len(now.tasks)) == first
    second = int(median(now.parts).nan_to_num(nan=-1).masked_fill(itself, -1).argmax())
    alignment = median(now.alignment).nan_to_num(nan=torch.inf).masked_fill(itself, torch.inf)
    last = int(alignment.argmin())
    lead, share, least = float(remedies.lead(now)[first]), float(median(now.shares)[first]), float(alignment[last])
    culprit, next_, worst = _names(now, [first, second, last])
    decides = f"decides {'all' if share >= 1 else percent(share)} of the direction"
    expense = f"{worst!r} {_gets(least)}"
    kind, evidence = "dominance", {"lead": lead, "share": share, "lowest_alignment": least}
    text = f"{culprit!r} pulls {number(lead)} times as hard as {next_!r}, the next, and {decides}; {expense}."
    if math.isinf(lead):
        text = f"{culprit!r} alone {decides}; {expense}."
    cure, units = remedies.remedy(recording, kind, first), _units(recording, first, second)
    if cure is not None and cure.method == "log" and units >= UNITS:
        kind, evidence = "scale_mismatch", evidence | {"loss_ratio": units}
        text = (
            f"The loss of {culprit!r} is {number(units)} times that of {next_!r}, so it pulls {number(lead)} times as "
            f"hard and {decides}; {expense}."
        )
    if cure is None:
        yield Finding(kind, (culprit, worst), text, _HOPELESS, evidence)
        return
    after = float(median(cure.trial.shares)[first])
    how = cure.sentence(f"would take its share to {percent(max(after, 0.0))}")
    yield Finding(kind, (culprit, worst), text, how, evidence | {"share_after": after})


def starvation(recording: Recording) -> Iterator[Finding]:
    """Tasks that pull far less than the others."""
    now = living(recent(recording))
    hungry = remedies.starved(now)
    if not hungry:
        return
    first, tasks = hungry[0], _names(now, hungry)
    part, alignment = float(remedies.hunger(now)[first]), float(median(now.alignment)[first])
    evidence = {"part": part, "alignment": alignment}
    worst = verb(tasks, "it", repr(tasks[0]))
    text = (
        f"{named(tasks)} {verb(tasks, 'starves', 'starve')}: {worst} pulls {number(part)} times as hard as a typical "
        f"other task and {_gets(alignment)}"
    )
    change = _change(recording)
    typical = change[[task for task in range(len(now.tasks)) if task not in hungry]].nanmedian()
    if not (change[first] + typical).isnan():
        evidence |= {"loss_change": float(change[first]), "loss_change_of_others": float(typical)}
        text += f"; its loss has changed by {_signed(change[first])}, that of the others by {_signed(typical)}"
    cure = remedies.remedy(recording, "starvation", first)
    if cure is None:
        yield Finding("starvation", tasks, f"{text}.", _HOPELESS, evidence)
        return
    after = float(median(cure.trial.alignment)[first])
    how = cure.sentence(f"would let {worst} get {percent(after)}")
    yield Finding("starvation", tasks, f"{text}.", how, evidence | {"alignment_after": after})


def conflict(recording: Recording) -> Iterator[Finding]:
    """Tasks that the step makes worse; failing these, tasks that pull apart."""
    now = living(recent(recording))
    victims = remedies.uphill(now)
    cosines = median(now.cosines).fill_diagonal_(torch.nan)
    if victims:
        yield _made_worse(recording, victims, cosines)
        return
    lowest, where = cosines.nan_to_num(nan=torch.inf).flatten().min(0)
    if len(now.tasks) == 1 or float(lowest) > OPPOSED:
        return
    pair = _names(now, list(divmod(int(where), len(now.tasks))))
    most = max(0.5 + 0.5 * float(lowest), 0.0) ** 0.5  # the cosine with the bisector
    text = (
        f"{named(pair)} pull apart: their gradients have a cosine of {number(lowest)}, so that the best compromise "
        f"brings either {percent(most)} of the progress that a step of its own would."
    )
    cure = (
        "Nothing has to be done while both improve, since angles alone do not tell who will lose, and where tasks "
        "compete training has to end like this; if one falls behind, give them more layers of their own."
    )
    yield Finding("conflict", pair, text, cure, {"cosine": float(lowest), "compromise": most})


def _made_worse(recording: Recording, victims: list[int], cosines: Tensor) -> Finding:
    now = living(recent(recording))
    first, tasks = victims[0], _names(now, victims)
    # How much of the step each task is, along the gradient of the one that fares worst.
    culprit = int(median(now.cosines[:, first] * now.weights * now.norms).nan_to_num(nan=torch.inf).argmin())
    alignment, evidence = float(median(now.alignment)[first]), {}
    text = (
        f"The step makes {named(tasks)} worse: the gradient of {tasks[0]!r} has a cosine of {number(alignment)} with "
        "the step"
    )
    if culprit == first:
        text += ", since its weight is negative."
    else:
        evidence["cosine"] = float(cosines[first, culprit])
        text += f" and of {number(evidence['cosine'])} with that of {now.tasks[culprit]!r}, which is most against it."
    evidence["alignment"] = alignment
    whom = tuple(dict.fromkeys((now.tasks[culprit], *tasks)))
    cure = remedies.remedy(recording, "conflict", first)
    if cure is None:
        return Finding("conflict", whom, text, _HOPELESS, evidence)
    after = float(median(cure.trial.alignment)[first])
    how = cure.sentence(f"would turn {number(alignment)} into {number(after)}")
    return Finding("conflict", whom, text, how, evidence | {"alignment_after": after})


def noise(recording: Recording) -> Iterator[Finding]:
    """Gradients whose norms are the batch's rather than the task's."""
    now = living(recent(recording))
    if len(now) <= JUMPS:
        return
    moves = now.norms.where(now.norms > 0, torch.nan).log().diff(dim=0)
    jumps = median((moves - moves.nanmean(0)).abs()).exp()  # without the trend
    wild = (jumps >= JUMP) & ((~moves.isnan()).sum(0) >= JUMPS)
    order = [task for task in jumps.argsort(descending=True).tolist() if wild[task]]
    if not order:
        return
    tasks = _names(now, order)
    text = (
        f"The gradient norm of {named(tasks)} jumps{verb(tasks, '', ', in the worst case,')} by a factor of "
        f"{number(jumps[order[0]])} from one look to the next."
    )
    cure = (
        "Use larger batches, of which four times as large ones halve the noise, or average gradients over steps: "
        '`isonomy.build("ema+max_norm", tasks, beta=0.9, decay=0.0)` with `shared=` the shared module.'
    )
    yield Finding("noise", tasks, text, cure, {"factor": float(jumps[order[0]])})


RULES: tuple[Rule, ...] = (nonfinite, exploding_loss, dead_head, dominance, starvation, conflict, noise)


def _names(recording: Recording, positions: list[int]) -> tuple[str, ...]:
    return tuple(recording.tasks[position] for position in positions)


def _units(recording: Recording, first: int, second: int) -> float:
    """How many times the second's loss the first's was in the beginning; NaN where this says nothing of units."""
    losses = finite(beginning(recording).losses)
    return float(median((losses[:, first] / losses[:, second]).where((losses > 0).all(1), torch.nan)))


def _change(recording: Recording) -> Tensor:
    """The relative change of each task's loss, from the first looks to the last, shape (T,); NaN if it is not known."""
    losses = finite(recording.losses)
    if len(recording) < FEWEST:
        return torch.full_like(losses[0], torch.nan)
    return (median(losses[-3:]) / median(losses[:3]) - 1).where(~(losses <= 0).any(0), torch.nan)


def _gets(alignment: float) -> str:
    if alignment < remedies.UPHILL:
        return f"is made worse by the step (cosine {number(alignment)})"
    return f"gets {percent(alignment)} of the progress that a step of its own would bring"


def _signed(change: Tensor) -> str:
    return f"{'+' if change > 0 else ''}{number(100 * change)} %"
