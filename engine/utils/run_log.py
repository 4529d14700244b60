"""The log of a run: `metrics.jsonl`, lines for a person through `logging`, and progress bars."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from ...modalities.paths import read_lines
from .atomic import append_line, write_text

METRICS = "metrics.jsonl"
INTERVAL = 30.0
"""Seconds between two lines of progress where no bar is drawn."""

logger = logging.getLogger(__name__)
# Else Python itself prints a library's warnings and errors, where nothing is configured.
logging.getLogger(__name__.partition(".")[0]).addHandler(logging.NullHandler())


class RunLogger:
    """Write `metrics.jsonl` into a folder, and log the progress.

    Lines are records of level INFO below the logger `sensorium`, which nobody sees unless they
    configure it, as the command line does (`console.py`); progress bars are drawn under the same
    condition, on a terminal. Elsewhere (a file, a scheduler's log) a line replaces the bar every
    `interval` seconds. folder: None, no file. show: False, the file alone. stage: written in each
    line. first_step: steps of the stages before, from where lines count on. clock: returns
    seconds. tracker: gets each line of the file too, until `close`.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        show: bool = True,
        stage: str | None = None,
        first_step: int = 0,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.show, self._first_step = show, first_step
        self._stage = {} if stage is None else {"stage": stage}
        self._path = folder / METRICS if folder is not None else None
        self._interval, self._clock = interval, clock
        self.tracker: _Tracker | None = None
        self._bar: _Bar | None = None
        self._progress: _Bar | None = None

    def rewind(self, step: int) -> None:
        """Drop the lines after a step (0: all of this stage): training continues from there."""
        if self._path is None or not self._path.exists():
            return
        lines = read_lines(self._path)
        earlier = [line for line in lines if _step(line) <= self._first_step + step]
        write_text(self._path, "".join(f"{line}\n" for line in earlier))

    def write(self, values: dict[str, Any]) -> None:
        """Append a line to `metrics.jsonl`."""
        if self._path is not None:
            values = {"step": self._first_step + values["step"], **self._stage} | {
                key: value for key, value in values.items() if key != "step"
            }
            append_line(self._path, json.dumps(values))
            if self.tracker is not None:
                self.tracker.log(values, values["step"])

    def info(self, text: str) -> None:
        """Log a line for a person."""
        if self.show:
            logger.info("%s", text)

    def warn(self, text: str) -> None:
        """Log a warning for a person."""
        if self.show:
            logger.warning("%s", text)

    def start(self, total: int, start: int, label: str) -> None:
        """Begin the bar of a training run that has come to step `start` of `total`."""
        self._bar = self._new_bar(label, "step", total, start)

    def step(self, **values: Any) -> None:
        """Move the training bar by one step; `values` are shown beside it."""
        if self._bar is not None:
            self._bar.update(self._bar.done + 1, {k: f"{v:.4g}" for k, v in values.items()})

    def progress(self, label: str, done: int, total: int) -> None:
        """Show how far a pass over rows or episodes has come; called with `done == total` at its
        end."""
        if self._progress is None or self._progress.what != label:
            self._progress = self._new_bar(label, "", total, done)
        self._progress.update(done)
        if done == total:
            self._progress.close()
            self._progress = None

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self.tracker is not None:
            self.tracker.close()
            self.tracker = None

    def _new_bar(self, label: str, unit: str, total: int, start: int) -> _Bar:
        visible = self.show and logger.isEnabledFor(logging.INFO)
        if visible and not sys.stderr.isatty():
            return _Lines(label, unit, total, start, self._interval, self._clock)
        return _TerminalBar(label, unit, total, start, disable=not visible)


class _Tracker(Protocol):
    """What gets the lines of the log too, see `checkpoint.trackers`."""

    def log(self, values: Mapping[str, Any], step: int) -> None: ...

    def close(self) -> None: ...


class _Bar(Protocol):
    """How far something has come: shown after each `update`, with values beside it."""

    what: str
    done: int

    def update(self, done: int, values: Mapping[str, str] = ...) -> None: ...

    def close(self) -> None: ...


class _TerminalBar:
    """A bar of tqdm."""

    def __init__(self, what: str, unit: str, total: int, done: int, disable: bool) -> None:
        self.what, self.done = what, done
        self._bar = tqdm(total=total, initial=done, desc=what, unit=unit or "it", disable=disable)

    def update(self, done: int, values: Mapping[str, str] = {}) -> None:
        self._bar.update(done - self.done)
        self.done = done
        if values:
            self._bar.set_postfix(dict(values))

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """A log line every `interval` seconds: `digits: step 120 of 900 (13 %), loss 0.53, 0:02:10
    left`. Nothing is logged of what takes less."""

    def __init__(
        self,
        what: str,
        unit: str,
        total: int,
        done: int,
        interval: float,
        clock: Callable[[], float],
    ) -> None:
        self.what, self.done = what, done
        self._unit, self._total, self._interval, self._clock = unit, total, interval, clock
        self._first, self._began = done, clock()
        self._logged = self._began
        self._values: dict[str, str] = {}

    def update(self, done: int, values: Mapping[str, str] = {}) -> None:
        self.done = done
        self._values |= values
        now = self._clock()
        if now - self._logged < self._interval:
            return
        self._logged = now
        parts = [f"{self._unit} {done:,} of {self._total:,}".lstrip()]
        if self._total:
            parts[0] += f" ({100 * done / self._total:.0f} %)"
        parts += [f"{name} {value}" for name, value in self._values.items()]
        if self._first < done < self._total:
            seconds = (now - self._began) / (done - self._first) * (self._total - done)
            parts.append(f"{timedelta(seconds=round(seconds))} left")
        logger.info("%s: %s", self.what, ", ".join(parts))

    def close(self) -> None:
        """Do nothing: the last line has been logged."""


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        return sys.maxsize  # a line that a kill cut short


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log, without one that was cut short."""
    path = folder / METRICS
    if not path.exists():
        return []
    lines = read_lines(path)
    return [json.loads(line) for line in lines if _step(line) < sys.maxsize]
