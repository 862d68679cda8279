"""Less of a data set: a share of its scenes, or of what each was seen from."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np

from isonomy.bench.seeds import key
from isonomy.errors import IsonomyError

T = TypeVar("T")

ALL = "all"


def check(share: str, option: str) -> None:
    """Refuses what is no share.

    Args:
        share: ``"all"``, a fraction such as ``"1/4"``, or a number such as ``"12"``.
        option: What it was given for.

    Raises:
        IsonomyError: It is none of these.
    """
    if share == ALL:
        return
    try:
        value = Fraction(share)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    whole = share.isdecimal()
    if value <= 0 or not (whole or ("/" in share and value <= 1)):
        raise IsonomyError(f"{option} is {share!r}: write all, a fraction such as 1/4, or a number such as 12.")


def size(share: str, count: int) -> int:
    """How many of so many a share is; one at least, and no more than there are.

    Args:
        share: One that ``check`` accepts.
        count: How many there are.
    """
    if share == ALL:
        return count
    wanted = int(share) if share.isdecimal() else round(Fraction(share) * count)
    return min(max(wanted, 1), count)


def kept(every: Sequence[T], share: str, *purpose: str) -> list[T]:
    """Some, drawn at random, in their order; a smaller share is a part of a larger one.

    Args:
        every: What there is.
        share: One that ``check`` accepts.
        purpose: What the draw is for; the same purpose draws the same.
    """
    shuffled = np.random.default_rng(key("share", *purpose)).permutation(len(every))
    return [every[i] for i in sorted(shuffled[: size(share, len(every))].tolist())]
