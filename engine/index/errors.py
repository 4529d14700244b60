"""What Lance, faiss and Arrow raise, as one line that names the index; and its conditions, checked
before Lance sees them: of a text that it cannot parse to the end it takes the beginning alone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from ...modalities.messages import did_you_mean
from ..utils import ConfigError, RuntimeFailure

LIBRARY_ERRORS = (OSError, ValueError, RuntimeError)
"""Errors of the libraries, besides the panics of Rust code, which have their own class."""

_FULL = re.compile(r"no space left|disk quota|os error (28|122)", re.I)
_DAMAGED = re.compile(
    r"\bIO\b|not found|corrupt|os error|end of file|out of range|invalid file", re.I
)
_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)|(?P<open>['"`])|(?P<stop>;|--|/\*|\$)|[()]""",
    re.S,
)


@contextlib.contextmanager
def index_errors(uri: str, action: str = "cannot be read") -> Iterator[None]:
    """Raise RuntimeFailure in one line for errors of the libraries raised inside."""
    try:
        yield
    except (ConfigError, RuntimeFailure):
        raise
    except Exception as error:
        if not is_library_error(error):
            raise
        raise RuntimeFailure(f"{uri}: {action}: {reason(error)}") from error


def is_library_error(error: Exception) -> bool:
    """Return whether an error comes from the libraries that keep an index."""
    return isinstance(error, LIBRARY_ERRORS) or type(error).__name__ == "RustPanic"


def is_damage(error: Exception) -> bool:
    """Return whether an error is about files, not about the query."""
    return isinstance(error, OSError) or bool(_DAMAGED.search(str(error)))


def is_conflict(error: Exception) -> bool:
    """Return whether another writer committed first."""
    return "conflict" in str(error).lower()


def reason(error: BaseException) -> str:
    """Return one line that describes the error."""
    text = " ".join(str(error).split())
    if _FULL.search(text):
        return "the disk is full; make room and run the same command again"
    text = re.sub(r",? ?(?:/\S+)?/\S+\.rs:\d+(:\d+)?", "", text)  # the line of Lance's own source
    return text[:200] or type(error).__name__


def check_condition(condition: str) -> str:
    """Return an SQL condition in parentheses, so that all of it has to be parsed.

    Raise ConfigError for what would end it early: a `;`, a comment, a parenthesis or quotation
    mark without its other half.
    """
    depth = 0
    for token in _TOKEN.finditer(condition):
        if token["open"]:
            raise ConfigError(f"--where: {token['open']} at {token.start() + 1} is never closed")
        if token["stop"]:
            raise ConfigError(
                f"--where: found {token['stop']!r} at {token.start() + 1}, expected one condition; "
                "a text is in single quotes"
            )
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth < 0:
            raise ConfigError(f"--where: ) at {token.start() + 1} closes nothing")
    if depth:
        raise ConfigError("--where: a ( is never closed")
    return f"({condition})"


def condition_message(error: Exception, columns: Sequence[str]) -> str:
    """Return one line about a condition that cannot be read."""
    text = str(error).partition("\n")[0]
    unknown = re.search(r"No field named [`\"']?([^`\"'.]+)", text)
    if unknown:
        visible = [name for name in columns if not name.startswith("_")]
        return f"--where: there is no column {unknown[1]!r}{did_you_mean(unknown[1], visible)}"
    wrong = reason(error).removeprefix("Invalid input, ")
    wrong = re.sub(r"SELECT 1 FROM t WHERE ", "", wrong)
    return f"--where: {re.sub(r',? /[^ ]+$', '', wrong)}"
