"""Options after a name, such as ``"rooms:size=96x128,train=960"``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from isonomy.errors import IsonomyError, unknown


def name_of(text: str) -> str:
    """The name alone.

    Args:
        text: A name, with options after a colon or without.
    """
    return text.partition(":")[0]


def read(text: str, defaults: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The options after a name.

    Args:
        text: A name, with options after a colon or without.
        defaults: What can be set, with the default, whose type says how a value is read.
        what: What the options are of, for the error.

    Raises:
        IsonomyError: An option is unknown or given twice, or its value cannot be read.
    """
    return {
        option: parse(value, defaults[option], f"Option {option} of {what}")
        for option, value in pieces(text, defaults, what)
    }


def pieces(text: str, known: Collection[str], what: str) -> list[tuple[str, str]]:
    """The options after a name as they are written.

    Args:
        text: A name, with options after a colon or without.
        known: What can be set.
        what: What the options are of, for the error.

    Raises:
        IsonomyError: An option is unknown or given twice.
    """
    given: dict[str, str] = {}
    for option in filter(None, text.partition(":")[2].split(",")):
        key, _, value = (part.strip() for part in option.partition("="))
        if key not in known:
            raise unknown(f"option of {what}", key, known)
        if key in given:
            raise IsonomyError(f"Option {key} of {what} is given twice: give each option once.")
        given[key] = value
    return list(given.items())


def defaults_of(made: Callable[..., Any]) -> dict[str, Any]:
    """The options of a function or class that a command line can set, with their defaults.

    Args:
        made: The function or class.
    """
    parameters = inspect.signature(made).parameters.values()
    return {p.name: p.default for p in parameters if isinstance(p.default, (str, bool, int, float, tuple))}


def parse(text: str, default: Any, what: str) -> Any:
    """An option's value, of the type of its default.

    Args:
        text: As written.
        default: A word, a truth value, a number, or a tuple of them, which is written with an x between them.
        what: The option, for the error.

    Raises:
        IsonomyError: It is not of that type.
    """
    if isinstance(default, bool):
        if text in ("true", "false"):
            return text == "true"
        raise IsonomyError(f"{what} is {text!r}: write true or false.")
    kind = type(default[0]) if isinstance(default, tuple) else type(default)
    parts = text.split("x") if isinstance(default, tuple) else [text]
    try:
        values = tuple(kind(part) for part in parts)
    except ValueError:
        values = ()
    if not values or (len(values) == 1) == isinstance(default, tuple):
        example = "x".join(map(str, default)) if isinstance(default, tuple) else default
        raise IsonomyError(f"{what} is {text!r}: write something like {example}.")
    return values if isinstance(default, tuple) else values[0]
