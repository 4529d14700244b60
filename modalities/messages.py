"""Text for a user: the nearest known name and a short form of any value in error messages; the
messages of libraries are kept out."""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def closest(name: str, names: Iterable[str]) -> str | None:
    """Return the name of `names` that is most like a misspelt one, or None if none is."""
    matches = difflib.get_close_matches(name, list(names), n=1)
    return matches[0] if matches else None


def did_you_mean(name: str, choices: Iterable[str], limit: int = 12) -> str:
    """Return `; did you mean 'mlp'?`, or up to `limit` of the choices if none is close."""
    names = sorted(choices)
    match = closest(name, names)
    if match is not None:
        return f"; did you mean {match!r}?"
    if not names:
        return "; there are none"
    others = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"; there are: {', '.join(names[:limit])}{others}"


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
    describe the error."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename if error.filename is not None else ""
        return shorten(f"{name}: {error.strerror}" if name != "" else error.strerror)
    text = shorten(str(error))
    self_explanatory = isinstance(error, (ImportError, OSError)) or type(
        error
    ).__module__.startswith(_OWN)
    if text and (self_explanatory or type(error) is ValueError):
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


class ReadError(ValueError):
    """A signal that cannot be read: its name, the problem, the value expected."""

    def __init__(self, source: object, wrong: str, right: str) -> None:
        self.source, self.wrong, self.right = short_repr(source), shorten(wrong), shorten(right)
        name = f"{self.source}: " if self.source else ""  # an empty text
        super().__init__(f"{name}{self.wrong}; expected {self.right}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.source, self.wrong, self.right))


@contextlib.contextmanager
def read_errors(source: object, expected: str, wrong: str = "cannot be read") -> Iterator[None]:
    """Raise any error of a library within the block as ReadError, which names the source."""
    try:
        yield
    except (ReadError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        raise ReadError(source, f"{wrong} ({describe_error(error)})", expected) from error


def only_read_errors(expected: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Return a decorator of functions that read a cell: they raise nothing but ReadError.

    Libraries stumble over a damaged file with exceptions of any class, which would end a run that
    skips rows that cannot be read.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(function)
        def read(source: Any, *args: Any, **options: Any) -> T:
            with read_errors(source, expected):
                return function(source, *args, **options)

        return read

    return decorate


class RowErrors(ValueError):
    """Rows of a batch that a part cannot process, found while it runs: they fail, the others go
    on. reasons: by place in the batch, a line each. count: rows of the batch that the part saw."""

    def __init__(self, reasons: Mapping[int, str], count: int) -> None:
        self.reasons, self.count = dict(reasons), count
        super().__init__(next(iter(self.reasons.values()), "no row"))

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.reasons, self.count))


def plural(name: str) -> str:
    """Return the plural of a kind of parts: `encoders`, `modalities`, `analyses`."""
    for ending, endings in (("is", "es"), ("y", "ies")):
        if name.endswith(ending):
            return f"{name.removesuffix(ending)}{endings}"
    return f"{name}s"


@contextlib.contextmanager
def quiet_logger(*names: str) -> Iterator[None]:
    """Let these loggers of libraries report nothing below an error within the block."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence the messages of transformers while it reads a checkpoint's weights.

    That is its bar over tensors, and its list of the weights that only one of model and checkpoint
    has: those beside the part that is used are many, and missing ones are an error of `load`. Bars
    of downloads stay where somebody watches.
    """
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as of_transformers

    was_enabled = of_transformers.is_progress_bar_enabled()
    downloads = not are_progress_bars_disabled()
    of_transformers.disable_progress_bar()  # this switches off those of the hub too
    if downloads and sys.stderr.isatty():
        enable_progress_bars()
    log = logging.getLogger("transformers.modeling_utils")
    log.addFilter(_is_no_report)
    try:
        yield
    finally:
        log.removeFilter(_is_no_report)
        if was_enabled:
            of_transformers.enable_progress_bar()
        (enable_progress_bars if downloads else disable_progress_bars)()


def _is_no_report(record: logging.LogRecord) -> bool:
    """Return False for the list of weights, and for a table beside the one that a configuration of
    T5's family names, which the decoder then has as well."""
    message = record.getMessage()
    return "LOAD REPORT" not in message and "we will NOT tie them" not in message
