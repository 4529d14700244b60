"""The errors that a user meets: one line each, with the place, what was found and the cure.

Code of others (libraries, plug-ins, the file system, worker processes) raises whatever it likes.
Where such code is called, `located_errors` turns it into one of the classes below; the cause stays
attached, and `sensorium --debug` prints it.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Container, Iterator, Mapping

from ...modalities.messages import describe_error
from ...modalities.messages import did_you_mean as did_you_mean
from ...modalities.messages import shorten as shorten


class ConfigError(ValueError):
    """A mistake in a recipe, a command line or a file that they name; a line each."""


class RuntimeFailure(RuntimeError):
    """A run that cannot go on (a loss that is not a number, a disk that is full)."""


class Interrupted(RuntimeFailure):
    """Stopped by a signal, a checkpoint written."""


class WorkerDied(RuntimeFailure):
    """A process that loads rows was killed; what was trained before is whole."""


_PLACE = re.compile(r"(inputs|backbone|decoders|tasks|train|cache|env)(\.\w+)*: ")
_KEY = re.compile(r"(\w+)(\.\w+)*: ")


def with_location(where: str, error: BaseException, options: Container[str] = ()) -> str:
    """Return an error's text as one line that begins with its place in the recipe.

    A message that begins with one of the part's `options` continues the place.
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
    """Raise whatever is raised within the block as `error_class`, with its place in front.

    options: the names of the part's options, which continue the place. values: those that the
    recipe gives; they are listed beside an error that names none of them. Errors that are a line
    of ours already (ConfigError, RuntimeFailure) pass unchanged.
    """
    try:
        yield
    except (ConfigError, RuntimeFailure, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        text = with_location(where, error, options)
        raise error_class(text + _listed(values, text, error)) from error


def _listed(values: Mapping[str, object] | None, text: str, error: BaseException) -> str:
    """Return the recipe's values for an error of a library, which does not know their names."""
    if not values or type(error) is ValueError or any(name in text for name in values):
        return ""
    return f" (built from {shorten(', '.join(f'{k}: {v}' for k, v in values.items()), 150)})"


def log_cause(logger: logging.Logger, error: BaseException) -> None:
    """Log the traceback of an error that is reported as one line; `--debug` shows it."""
    logger.debug("%s", describe_error(error), exc_info=error)
