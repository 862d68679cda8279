"""What is wrong with a training, in plain sentences with their evidence and the cheapest remedy."""

from __future__ import annotations

from isonomy.diagnostics.finding import Finding, number
from isonomy.diagnostics.judged import living, median, recent
from isonomy.diagnostics.recording import Recording
from isonomy.diagnostics.remedies import lead
from isonomy.diagnostics.rules import RULES
from isonomy.errors import IsonomyError

__all__ = ["Finding", "findings", "summary"]


def findings(recording: Recording) -> list[Finding]:
    """What is wrong, by the rules of docs/diagnosis.md.

    Args:
        recording: Of at least one look.

    Returns:
        Findings, the most important first; none where nothing is wrong.

    Raises:
        IsonomyError: The recording has no looks.
    """
    if not len(recording):
        raise IsonomyError("recording= has no looks: let the training run for a step before it is judged.")
    return [finding for rule in RULES for finding in rule(recording)]


def summary(recording: Recording) -> list[str]:
    """The findings as sentences; or one sentence that nothing is wrong, with its evidence.

    Args:
        recording: Of at least one look.

    Raises:
        IsonomyError: The recording has no looks.
    """
    return [str(finding) for finding in findings(recording)] or [_healthy(recording)]


def _healthy(recording: Recording) -> str:
    now = living(recent(recording))
    first, last = int(now.steps[0]), int(now.steps[-1])
    when = f"{len(now)} looks from {now.unit} {first} to {last}" if len(now) > 1 else f"the look at {now.unit} {last}"
    if now.norms.isnan().all():
        return f"Nothing is wrong with the losses ({when}); gradients were not measured."
    if len(now.tasks) == 1:
        return f"Nothing is wrong ({when}): the one task has a gradient, and its loss does not explode."
    if now.parts.isnan().all():
        return (
            f"Nothing is wrong that can be seen ({when}): every task has a gradient and no two oppose each other; who "
            "decides the direction is not known, since the method has no weights."
        )
    ratio, alignment = lead(now), median(now.alignment)
    if ratio.isnan().all():
        return f"Nothing is wrong that can be seen ({when}): every task has a gradient, but no two were there at once."
    strongest, least = int(ratio.nan_to_num(nan=0).argmax()), int(alignment.nan_to_num(nan=2).argmin())
    times = number(ratio[strongest].clamp_min(1))
    hard = "as hard" if times == "1" else f"{times} times as hard"
    return (
        f"Nothing is wrong ({when}): the strongest task, {now.tasks[strongest]!r}, pulls {hard} as the next, and the "
        f"lowest cosine of a gradient with the step is {number(alignment[least])}, that of {now.tasks[least]!r}."
    )
