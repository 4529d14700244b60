"""The one kind of error that a user's mistake gives: where, what was found, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RecipeError(ValueError):
    """A mistake in a recipe, a command line or a file that they name; a line each."""


class RunError(RuntimeError):
    """A run that cannot go on (a loss that is not a number, a disk that is full)."""


class Interrupted(RunError):
    """Stopped by a signal, a checkpoint written."""


def did_you_mean(name: str, known: Iterable[str], limit: int = 12) -> str:
    """`; did you mean 'mlp'?`, or the names that there are."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not known:
        return "; there are none"
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return f"; there are: {', '.join(known[:limit])}{more}"
