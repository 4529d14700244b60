"""The one kind of error that a user's mistake gives: where, what was found, what to do."""

from __future__ import annotations

import re
from collections.abc import Container

from ...modalities.messages import did_you_mean as did_you_mean


class ConfigError(ValueError):
    """A mistake in a recipe, a command line or a file that they name; a line each."""


class RuntimeFailure(RuntimeError):
    """A run that cannot go on (a loss that is not a number, a disk that is full)."""


class Interrupted(RuntimeFailure):
    """Stopped by a signal, a checkpoint written."""


_PLACE = re.compile(r"(inputs|backbone|decoders|tasks|train|cache|env)(\.\w+)*: ")
_KEY = re.compile(r"(\w+)(\.\w+)*: ")


def with_location(where: str, error: BaseException, options: Container[str] = ()) -> str:
    """An error's text as one line that begins with its place in the recipe.

    A complaint that begins with one of the part's `options` goes on from `where`.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if _PLACE.match(text):
        return text
    key = _KEY.match(text)
    if key and key[1] in options:
        return f"{where}.{text}"
    return f"{where}: {text.removeprefix(where.rpartition('.')[2] + ': ')}"
