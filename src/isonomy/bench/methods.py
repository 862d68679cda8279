"""Methods as a sweep names them, with options if wanted: ``"db_mtl:beta=0.5"``, ``"imtl_g:level=parameters"``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import isonomy
from isonomy import catalogue
from isonomy.bench.options import name_of, parse, pieces
from isonomy.errors import IsonomyError

LEVEL = "level"


class Named(NamedTuple):
    """A method and what was asked of it.

    Attributes:
        method: Of the catalogue, or a hybrid.
        options: Those that were given.
        level: Where it is to measure gradients; None if that was not said.
    """

    method: catalogue.Method
    options: dict[str, Any]
    level: str | None

    @property
    def title(self) -> str:
        """For people."""
        given = {**self.options, **({LEVEL: self.level} if self.level else {})}
        options = ", ".join(f"{name} = {_shown(value)}" for name, value in given.items())
        return f"{self.method.title} ({options})" if options else self.method.title


def _shown(value: Any) -> str:
    return " : ".join(f"{part:g}" for part in value) if isinstance(value, list) else str(value)


def split(text: str) -> list[str]:
    """The methods of a list with commas, which separate options, too: ``"ew,db_mtl:beta=0.5,decay=0,uw"`` are three.

    Args:
        text: As typed.
    """
    found: list[str] = []
    for piece in filter(None, (part.strip() for part in text.split(","))):
        if found and ":" in found[-1] and re.fullmatch(r"\w+\s*=.*", piece):
            found[-1] += f",{piece}"
        else:
            found.append(piece)
    return found


def find(text: str) -> Named:
    """The method of that name, with its options.

    Args:
        text: A method of the catalogue or a hybrid, with options after a colon or without.

    Raises:
        IsonomyError: There is no such method or option, or an option cannot be read.
    """
    name = name_of(text)
    method = catalogue.find(name)
    known = {LEVEL: "", **method.options}
    options: dict[str, Any] = {}
    for option, value in pieces(text, known, name):
        default = known[option]
        typed = isinstance(default, (str, bool, int, float))
        options[option] = parse(value, default, f"Option {option} of {name}") if typed else _literal(value)
    level = options.pop(LEVEL, None)
    return Named(method, options, level)


def require(text: str, tasks: Sequence[str]) -> None:
    """Refuses options that the method does not take.

    Args:
        text: As for ``find``.
        tasks: Names of the tasks that it is to balance.

    Raises:
        IsonomyError: The method cannot be built with these.
    """
    named = find(text)
    if not named.options or not named.method.stages:
        return
    # A size that is found by looking at the network.
    sizes = {"features": 1} if named.method.options.get("features") is inspect.Parameter.empty else {}
    try:
        isonomy.build(named.method.name, tasks, **sizes, **named.options)
    except TypeError as error:
        raise IsonomyError(
            f"Method {text!r} cannot be made ({error}): see its page for what its options take."
        ) from None


def _literal(text: str) -> Any:
    """A value of an option whose type no default tells: a number, numbers with an x between them, or a word."""
    if text in ("true", "false"):
        return text == "true"
    try:
        numbers = [float(part) for part in text.split("x")]
    except ValueError:
        return text
    return numbers if len(numbers) > 1 else numbers[0]
