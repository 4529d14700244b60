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
