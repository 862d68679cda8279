"""The one wording of everything that can be wrong with what a user passes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class IsonomyError(ValueError):
    """Base class of every error Isonomy raises about its input.

    The message is one or two sentences: what is wrong, by name, and the way out. It is raised before any gradient or
    state has changed.
    """


class ElsewhereError(IsonomyError):
    """Another process of a data-parallel run has raised an error, which says what is wrong."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> IsonomyError:
    """An error for a name that does not exist, with the closest name that does.

    Args:
        kind: What was looked up, such as ``"method"`` or ``"task"``.
        name: The name as given.
        choices: The names that exist.

    Returns:
        The error, ready to be raised.
    """
    choices = sorted(choices)
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(choices) or 'nothing: there is none'}."
    return IsonomyError(f"Unknown {kind} {name!r}: {hint}")


def listing(names: Iterable[str]) -> str:
    """Names for a sentence: ``'a'``, ``'a' and 'b'``, ``'a', 'b' and 'c'``."""
    quoted = [repr(name) for name in names]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]])) if quoted else "none"
