"""Text of error messages: the nearest known name, and a short form of any value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the name in `known` that is most like a misspelt one, or None if none is."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str], limit: int = 12) -> str:
    """Return `; did you mean 'mlp'?`, or up to `limit` of the known names if none is close."""
    names = sorted(known)
    match = closest(name, names)
    if match is not None:
        return f"; did you mean {match!r}?"
    if not names:
        return "; there are none"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"; there are: {', '.join(names[:limit])}{more}"


MESSAGE_LENGTH = 300
"""Characters of an error's line that come from a library; lists of class names are cut there."""


def shorten(text: str, length: int = MESSAGE_LENGTH) -> str:
    """Return a text in one line of at most `length` characters, its middle left out if longer."""
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    tail = length // 4
    return f"{line[: length - tail - 5]} ... {line[len(line) - tail :]}"


def describe_error(error: BaseException) -> str:
    """Return any exception as one line: its text, after its class where that text alone would not
    say what happened."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename if error.filename is not None else ""
        return shorten(f"{name}: {error.strerror}" if name != "" else error.strerror)
    text = shorten(str(error))
    plain = isinstance(error, (ImportError, OSError)) or type(error).__module__.startswith(_OWN)
    if text and (plain or type(error) is ValueError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_OWN = __name__.partition(".")[0]


def short_repr(value: object) -> str:
    """Return a short name of a data cell, at most one line: its path, its size or its shape."""
    if isinstance(value, Mapping) and isinstance(value.get("path"), str):
        value = value["path"]  # a cell of a data set
    if isinstance(value, (str, Path)):
        return str(value) if len(str(value)) <= 200 else f"{str(value)[:200]}..."
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"<{type(value).__name__} {tuple(shape)}>"
    return f"<{getattr(value, 'name', None) or type(value).__name__}>"
