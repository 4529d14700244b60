"""`sensorium VERB ...`, also as `python -m sensorium`.

`--debug`, anywhere on the command line, prints the traceback of an error too.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

DEBUG = "--debug"


def main() -> None:
    """Run a verb. Exit code 2 for a user's mistake, 1 for a failure; one line for each error."""
    from .engine.utils import console
    from .scripts.app import command

    arguments = sys.argv[1:]
    debug = DEBUG in arguments
    try:
        _refuse_empty(arguments)
        with console(debug=debug):
            command()([word for word in arguments if word != DEBUG], prog_name="sensorium")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of stdout has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        sys.exit(_report(error, debug))


def _refuse_empty(arguments: list[str]) -> None:
    """Raise ConfigError for an empty argument, which would stand for the current folder."""
    from .engine.utils import ConfigError

    for number, word in enumerate(arguments):
        name = arguments[number - 1] if number and not word else word.removesuffix("=")
        if not word or (word.startswith("--") and word.endswith("=")):
            after = f" after {name}" if word or number else ""
            raise ConfigError(f"an argument is empty{after}; is a variable of the shell not set?")


def _report(error: Exception, debug: bool) -> int:
    """Write an error to stderr, a line each; return the exit code."""
    from .modalities.messages import describe_error

    for child in multiprocessing.active_children():  # workers ignore SIGTERM, which ends them
        child.kill()
    code = _exit_code(error)
    if debug:
        import traceback

        traceback.print_exception(error)
    text = str(error)
    if code is None:
        cure = "" if isinstance(error, OSError) else f" (unexpected; {DEBUG} shows where)"
        text = f"{describe_error(error)}{cure}"
    for line in text.splitlines():
        sys.stderr.write(f"error: {line}\n")
    return 1 if code is None else code


def _exit_code(error: Exception) -> int | None:
    """Return the exit code of an error that was foreseen, None of any other."""
    from .engine.utils import ConfigError, Interrupted, RuntimeFailure
    from .modalities.base import ReadError

    if isinstance(error, Interrupted):
        return 130
    if isinstance(error, (ConfigError, ReadError)):
        return 2
    return 1 if isinstance(error, RuntimeFailure) else None


if __name__ == "__main__":
    main()
