"""What a rule makes: a finding, and the words for its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from isonomy.errors import listing

# Names in a sentence, before it goes on "and 36 others".
NAMES = 4


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: ``"nonfinite"``, ``"exploding_loss"``, ``"dead_head"``, ``"dominance"``, ``"scale_mismatch"``,
            ``"starvation"``, ``"conflict"`` or ``"noise"``.
        tasks: Whom it is about, the culprit first.
        text: What is seen, one sentence with its numbers.
        remedy: The cheapest thing to do about it, one sentence.
        evidence: The numbers, unrounded.
    """

    kind: str
    tasks: tuple[str, ...]
    text: str
    remedy: str
    evidence: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.text} {self.remedy}"


def number(value: float | Tensor) -> str:
    """Two significant digits."""
    value = float(value)
    rounded = float(f"{value:.2g}")
    if math.isinf(value):
        text = "infinitely many"
    else:
        text = f"{rounded:.12g}" if rounded == 0 or 1e-4 <= abs(rounded) < 1e6 else f"{rounded:.1e}"
    return text.replace("-", "−")


def percent(share: float | Tensor) -> str:
    """A share in per cent, which is all or none only where it is."""
    share = float(share)
    if share < 0.001:
        return "none"
    return "more than 99 %" if 0.99 < share < 1 else f"{number(100 * share)} %"


def named(tasks: Sequence[str]) -> str:
    """Names for a sentence, which stays readable for forty tasks."""
    if len(tasks) <= NAMES + 1:
        return listing(tasks)
    return ", ".join(map(repr, tasks[:NAMES])) + f" and {len(tasks) - NAMES} others"


def verb(tasks: Sequence[str], one: str, several: str) -> str:
    """The form that agrees with so many subjects."""
    return one if len(tasks) == 1 else several
