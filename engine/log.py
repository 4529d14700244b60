"""What a run writes while it goes: `metrics.jsonl`, a progress bar, lines for a person."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

METRICS = "metrics.jsonl"


class Log:
    """A run's log. Silent but for its file where `show` is False; the bar only on a terminal."""

    def __init__(self, folder: Path | None, *, show: bool = True) -> None:
        self.show = show
        self._path = folder / METRICS if folder is not None else None
        self._bar: tqdm[Any] | None = None
        self._fills: tuple[str, tqdm[Any]] | None = None

    def rewind(self, step: int) -> None:
        """Drop the lines after a step: training goes on from there."""
        if self._path is None or not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step(line) <= step]
        self._path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def write(self, values: dict[str, Any]) -> None:
        """One line of `metrics.jsonl`."""
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")

    def say(self, text: str) -> None:
        """A line for a person, beside the bar."""
        if self.show:
            tqdm.write(text, file=sys.stderr)

    def bar(self, total: int, start: int, what: str) -> None:
        self._bar = tqdm(
            total=total, initial=start, desc=what, unit="step", disable=self._quiet(), leave=True
        )

    def step(self, **values: Any) -> None:
        if self._bar is not None:
            self._bar.update()
            if values:
                self._bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()})

    def filling(self, what: str, done: int, total: int) -> None:
        """Progress of a store being filled; a `Progress` of `prefill`."""
        if self._fills is None or self._fills[0] != what:
            bar = tqdm(total=total, desc=f"cache {what}", unit="row", disable=self._quiet())
            self._fills = (what, bar)
        bar = self._fills[1]
        bar.update(done - bar.n)
        if done == total:
            bar.close()
            self._fills = None

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _quiet(self) -> bool:
        return not self.show or not sys.stderr.isatty()


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        return sys.maxsize  # a line that a kill cut short


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; one that was cut short is left out."""
    path = folder / METRICS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if _step(line) < sys.maxsize]
