"""The log of a run: `metrics.jsonl`, lines for a person through `logging`, and progress bars."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .atomic import append_line, write_text

METRICS = "metrics.jsonl"

logger = logging.getLogger(__name__)
# Else Python itself prints a library's warnings and errors, to whoever configures nothing.
logging.getLogger(__name__.partition(".")[0]).addHandler(logging.NullHandler())


class RunLogger:
    """Write `metrics.jsonl` into a folder, and say on the logger what happens.

    Lines are records of level INFO below the logger `sensorium`, which nobody sees unless they
    configure it, as the command line does (`console.py`); progress bars are drawn under the same
    condition, on a terminal. folder: None, no file. show: False, the file alone. stage: stands in
    each line. first_step: steps of the stages before, from where lines count on.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        show: bool = True,
        stage: str | None = None,
        first_step: int = 0,
    ) -> None:
        self.show, self._first_step = show, first_step
        self._stage = {} if stage is None else {"stage": stage}
        self._path = folder / METRICS if folder is not None else None
        self._bar: tqdm[Any] | None = None
        self._progress: tuple[str, tqdm[Any]] | None = None

    def rewind(self, step: int) -> None:
        """Drop the lines after a step (0: all of this stage): training goes on from there."""
        if self._path is None or not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step(line) <= self._first_step + step]
        write_text(self._path, "".join(f"{line}\n" for line in kept))

    def write(self, values: dict[str, Any]) -> None:
        """Append a line to `metrics.jsonl`."""
        if self._path is not None:
            values = {"step": self._first_step + values["step"], **self._stage} | {
                key: value for key, value in values.items() if key != "step"
            }
            append_line(self._path, json.dumps(values))

    def info(self, text: str) -> None:
        """Log a line for a person."""
        if self.show:
            logger.info("%s", text)

    def warn(self, text: str) -> None:
        """Log a warning for a person."""
        if self.show:
            logger.warning("%s", text)

    def start(self, total: int, start: int, what: str) -> None:
        """Begin the bar of a training run that has come to step `start` of `total`."""
        self._bar = tqdm(total=total, initial=start, desc=what, unit="step", disable=self._quiet())

    def step(self, **values: Any) -> None:
        """Move the training bar by one step; `values` stand beside it."""
        if self._bar is not None:
            self._bar.update()
            if values:
                self._bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()})

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far a pass over rows or episodes has come; called with `done == total` at its
        end."""
        if self._progress is None or self._progress[0] != what:
            self._progress = (what, tqdm(total=total, desc=what, disable=self._quiet()))
        bar = self._progress[1]
        bar.update(done - bar.n)
        if done == total:
            bar.close()
            self._progress = None

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _quiet(self) -> bool:
        return not (self.show and logger.isEnabledFor(logging.INFO) and sys.stderr.isatty())


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
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if _step(line) < sys.maxsize]
