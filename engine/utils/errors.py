"""The errors that a user meets: one line each, with the place, the value found and the cure.

Code of others (libraries, plug-ins, the file system, worker processes) may raise any exception.
Where such code is called, `located_errors` turns it into one of the classes below; the cause stays
attached, and `sensorium --debug` prints it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

from ...modalities.messages import describe_error
from ...modalities.messages import did_you_mean as did_you_mean
from ...modalities.messages import shorten as shorten

logger = logging.getLogger(__name__)


class ConfigError(ValueError):
    """A mistake in a recipe, a command line or a file that they name; a line each."""


class RuntimeFailure(RuntimeError):
    """A run that cannot go on (a loss that is not a number, a disk that is full)."""


class Interrupted(RuntimeFailure):
    """Stopped by a signal, a checkpoint written."""


class WorkerDied(RuntimeFailure):
    """A process that loads rows was killed; the training before it is intact."""


_PLACE = re.compile(r"(inputs|backbone|decoders|tasks|train|cache|env)(\.\w+)*: ")
_KEY = re.compile(r"(\w+)(\.\w+)*: ")


def with_location(where: str, error: BaseException, options: Container[str] = ()) -> str:
    """Return an error's text as one line with its place in the recipe in front.

    A message that starts with one of the part's `options` continues the place.
    """
    text = describe_error(error)
    if _PLACE.match(text):
        return text
    key = _KEY.match(text)
    if key and key[1] in options:
        return f"{where}.{text}"
    return f"{where}: {text.removeprefix(where.rpartition('.')[2] + ': ')}"


@contextlib.contextmanager
def located_errors(
    where: str,
    options: Container[str] = (),
    values: Mapping[str, object] | None = None,
    error_class: type[Exception] = ConfigError,
) -> Iterator[None]:
    """Raise any error of the block as `error_class`, with its place in front.

    options: the names of the part's options, which continue the place. values: those that the
    recipe sets; they are listed beside an error that names none of them. Errors that are a line
    of ours already (ConfigError, RuntimeFailure) pass unchanged.
    """
    try:
        yield
    except (ConfigError, RuntimeFailure, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        text = with_location(where, error, options)
        raise error_class(text + _format_options(values, text, error)) from error


def _format_options(values: Mapping[str, object] | None, text: str, error: BaseException) -> str:
    """Return the recipe's values for an error of a library, which does not name them."""
    if not values or type(error) is ValueError or any(name in text for name in values):
        return ""
    return f" (built from {shorten(', '.join(f'{k}: {v}' for k, v in values.items()), 150)})"


def culprit(
    call: Callable[[dict[str, Any]], object], options: Mapping[str, Any], error: BaseException
) -> str | None:
    """Describe a call that failed with `error`: the option without which it succeeds,
    `options.heads: found 0: division by zero`, or all of them if there are several. None if there
    is no such option, or the error names its place itself."""
    text, leaves = describe_error(error), _leaves(options)
    key = _KEY.match(text)
    if key and key[1] in options and (key[2] or not isinstance(options[key[1]], Mapping)):
        return None
    named = set(re.findall(r"\w+", text))
    for place in leaves:
        if len(place) > 1 and place[-1] in named:
            return f"{_found(options, place)}: {text}"
    if type(error) is ValueError and named & {key for place in leaves for key in place}:
        return None
    places = [place for place in leaves if _works(call, _changes(options, place))]
    if len(places) > 1:
        listed = ", ".join(_found(options, place) for place in places)
        return f"{text} (it works without one of these: {listed})"
    return f"{_found(options, places[0])}: {text}" if places else None


def _works(call: Callable[[dict[str, Any]], object], changes: Iterator[dict[str, Any]]) -> bool:
    """Return whether a call succeeds with one of several changes of its options."""
    for options in changes:
        try:
            call(options)
        except Exception as reason:  # another option, or several
            logger.debug("with %s: %s", options, describe_error(reason))
        else:
            return True
    return False


def _found(options: Mapping[str, Any], place: Sequence[str]) -> str:
    value = functools.reduce(lambda values, key: values[key], place, options)
    return f"{'.'.join(place)}: found {shorten(repr(value), 60)}"


def _changes(options: Mapping[str, Any], place: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield nested options without the value of a place, and with a positive number in its place
    if none does."""
    key, *inner = place
    rest = {name: value for name, value in options.items() if name != key}
    if inner:
        yield from ({**rest, key: changed} for changed in _changes(options[key], inner))
        return
    yield rest
    value = options[key]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value <= 0:
        yield {**rest, key: abs(value) or 1}


def _leaves(options: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the places of all values of nested options."""
    leaves = []
    for key, value in options.items():
        inner = _leaves(value) if isinstance(value, Mapping) else []
        leaves += [(key, *place) for place in inner] or [(key,)]
    return leaves


def log_cause(logger: logging.Logger, error: BaseException) -> None:
    """Log the traceback of an error that is reported as one line; `--debug` shows it."""
    logger.debug("%s", describe_error(error), exc_info=error)


@contextlib.contextmanager
def with_name(name: object) -> Iterator[None]:
    """Add the requested name to an error that lacks it, as those of the hub."""
    try:
        yield
    except Exception as error:
        if not isinstance(name, str) or isinstance(error, ConfigError) or name in str(error):
            raise
        raise ValueError(f"name: {name!r}: {describe_error(error)}") from error
