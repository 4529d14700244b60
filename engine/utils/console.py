"""What the command line writes: log lines and warnings to stderr, a line each; text tables."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

ROOT = logging.getLogger(__name__.partition(".")[0])


class ConsoleHandler(logging.Handler):
    """Write records to stderr, above a progress bar where one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
            tqdm.write(f"{level}{self.format(record)}", file=sys.stderr)
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def console(*, debug: bool = False) -> Iterator[None]:
    """Send the package's log lines from INFO on, and every warning, to stderr.

    debug: those of level DEBUG too, which hold tracebacks of errors that are reported in a line.
    """
    if any(isinstance(handler, ConsoleHandler) for handler in ROOT.handlers):
        yield
        return
    handler, level, propagate = ConsoleHandler(), ROOT.level, ROOT.propagate
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        ROOT.addHandler(handler)
        ROOT.setLevel(logging.DEBUG if debug else logging.INFO)
        ROOT.propagate = False
        try:
            yield
        finally:
            ROOT.propagate = propagate
            ROOT.setLevel(level)
            ROOT.removeHandler(handler)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Log a warning without the line of code that gave it."""
    ROOT.warning("%s", " ".join(str(message).split()))


def format_table(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Return rows of cells as aligned lines; `right` holds the columns of numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    justify = [str.rjust if i in right else str.ljust for i in range(len(widths))]
    return "\n".join(
        "  ".join(
            align(cell, n) for align, cell, n in zip(justify, row, widths, strict=True)
        ).rstrip()
        for row in rows
    )
