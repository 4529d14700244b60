"""`sensorium VERB ...`, also as `python -m sensorium`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run a verb. Exit code 2 for a mistake of the user's, 1 for a failure, a line each."""
    from .engine.utils import console
    from .scripts.app import app

    try:
        with console():
            app(prog_name="sensorium")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        code = _code(error)
        if code is None:
            raise
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        sys.exit(code)


def _code(error: Exception) -> int | None:
    from .engine.utils import ConfigError, Interrupted, RuntimeFailure
    from .modalities.base import ReadError

    if isinstance(error, Interrupted):
        return 130
    if isinstance(error, (ConfigError, ReadError)):
        return 2
    return 1 if isinstance(error, RuntimeFailure) else None


if __name__ == "__main__":
    main()
