"""`data.delta_frames`: cells that are stretches of an episode, for a source whose rows are frames.

With `delta_frames: {state: [-1, 0], action: [0, 19]}` the row of frame t holds the state of frames
t - 1 and t, and the actions of t to t + 19. Beyond the ends of an episode the first or the last
frame is repeated, and the column `<name>_padding` is True.

Legend: `n` frames of a window, `N` rows.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from ...modalities.base import Source, StreamingSource
from ...modalities.messages import did_you_mean
from ...modalities.paths import FileLister, cell_files
from ..recipe import TaskSection
from ..utils import ConfigError
from .wrappers import Wrapped, column_names

FRAME = "frame_index"
"""The number of a frame in its episode, where a source has such a column."""

TIME = "timestamp"
"""The time of a frame in s, where a source has such a column."""

LATE = 1.5
"""Steps after which a frame is missing."""

Span = tuple[int, int]


class Windows(Wrapped):
    """Rows of an episodic source, with windows in the place of some columns.

    A cell of shape `[...]` becomes an array `[n, ...]` (floats as float32); a plain number becomes
    `[n, 1]`, so that a window is always steps by values. `<name>_padding` is bool `[n]`, True
    outside the episode. The other columns are those of the frame itself. Raise ValueError where
    a column is not there, holds no numbers, or misses frames, and where there are no episodes.
    """

    def __init__(self, source: Source, spans: Mapping[str, Span]) -> None:
        _check(source, spans)
        super().__init__(source)
        self.spans, source_columns = dict(spans), self.columns
        self.columns = (*source_columns, *(f"{name}_padding" for name in spans))
        self._first, self._last = _bounds(source, source_columns)
        self._cells = {name: _frames(source, name) for name in spans}
        self._offsets = {name: np.arange(low, high + 1) for name, (low, high) in spans.items()}

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self.source[index])
        for name in self.spans:
            row[name], row[f"{name}_padding"] = self._window(name, index)
        return row

    def _window(self, name: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames `[n, ...]` around a row, and which of them `[n]` the episode lacks."""
        frames = index + self._offsets[name]
        first, last, cells = self._first[index], self._last[index], self._cells[name]
        if frames[0] >= first and frames[-1] <= last:
            return cells[frames[0] : frames[-1] + 1].copy(), np.zeros(len(frames), bool)
        inside = np.minimum(np.maximum(frames, first), last)
        return cells[inside], frames != inside

    def cell(self, index: int, column: str) -> Any:
        if column in self.spans:
            return self._window(column, index)[0]
        if (name := column.removesuffix("_padding")) in self.spans:
            return self._window(name, index)[1]
        return self.source.cell(index, column)

    def column_array(self, column: str) -> np.ndarray:
        if column in self.spans or column.removesuffix("_padding") in self.spans:
            return Source.column_array(self, column)
        return self.source.column_array(column)

    def cell_key(self, index: int, column: str, files: FileLister = cell_files) -> str:
        name = self.source.cell_key(index, column, files)
        return f"{name}|{list(self.spans[column])}" if column in self.spans else name

    def named_cell(self, index: int, column: str) -> Any:
        return None if column in self.spans else self.source.named_cell(index, column)

    def fingerprint(self) -> str:
        spans = sorted((name, list(span)) for name, span in self.spans.items())
        return f"{self.source.fingerprint()}{spans}"


def _check(source: Source, spans: Mapping[str, Span]) -> None:
    if isinstance(source, StreamingSource) or not source.episodes:
        raise ValueError(
            "delta_frames: this source has no episodes; lerobot, metaworld and frames (tables with "
            "an episode_index) have"
        )
    columns = column_names(source)
    for name, (low, high) in spans.items():
        if name not in columns:
            raise ValueError(
                f"delta_frames.{name}: there is no such column{did_you_mean(name, columns)}"
            )
        if f"{name}_padding" in columns:
            raise ValueError(
                f"delta_frames.{name}: there is a column {name}_padding already; rename it"
            )
        if low > high:
            raise ValueError(
                f"delta_frames.{name}: found [{low}, {high}], expected the first frame before the "
                f"last; for example [{high}, {low}]"
            )


def _bounds(source: Source, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """First and last row `[N]` of every row's episode; ValueError where frames are missing."""
    first, last = np.zeros(len(source), np.int64), np.full(len(source), -1, np.int64)
    for episode in source.episodes:
        first[episode.start : episode.stop] = episode.start
        last[episode.start : episode.stop] = episode.stop - 1
    if (last < 0).any():
        raise ValueError(f"delta_frames: row {source.key(int(np.argmin(last)))} is in no episode")
    if FRAME in columns:
        frames = source.column_array(FRAME).astype(np.int64).reshape(-1)
        rows = np.arange(len(source))
        gaps = np.flatnonzero((frames - frames[first]) != rows - first)
        if len(gaps):
            row = int(gaps[0])
            raise ValueError(
                f"delta_frames: row {source.key(row)} is frame {frames[row]}, expected frame "
                f"{frames[row - 1] + 1} after the one before it; frames are missing"
            )
    elif TIME in columns:
        _check_times(source, first)
    return first, last


def _check_times(source: Source, first: np.ndarray) -> None:
    """Raise ValueError where the frames of an episode, which have no numbers, are not one step of
    time apart."""
    try:
        times = source.column_array(TIME).astype(np.float64).reshape(-1)
    except (TypeError, ValueError):  # dates, texts
        return
    gaps = np.diff(times)
    inside = (first[1:] == first[:-1]) & np.isfinite(gaps)
    if not inside.any():
        return
    step = float(np.median(gaps[inside]))
    wrong = np.flatnonzero(inside & ((gaps <= 0) | (gaps > LATE * step)))
    if len(wrong):
        row = int(wrong[0]) + 1
        raise ValueError(
            f"delta_frames: row {source.key(row)} is {gaps[row - 1]:.4g} s after the one before, "
            f"a step is {step:.4g} s; frames are missing or not in order"
        )


def _frames(source: Source, name: str) -> np.ndarray:
    """Return the column as `[N, ...]` with at least one axis beside the rows."""
    try:
        cells = source.column_array(name)
    except (TypeError, ValueError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"delta_frames.{name}: its cells cannot be stacked: {message}") from error
    if cells.dtype.kind not in "biuf":
        raise ValueError(
            f"delta_frames.{name}: holds {cells.dtype.name}, expected numbers of one shape; "
            "pictures and texts are taken of the frame itself"
        )
    if cells.dtype.kind == "f":
        cells = cells.astype(np.float32, copy=False)
    return cells[:, None] if cells.ndim == 1 else cells


def split_windows(section: TaskSection) -> dict[str, Span]:
    """Return the windows of a task's data by column, which are the same in all splits."""
    sections = reversed(section.data.values())
    return {name: span for data in sections for name, span in data.delta_frames.items()}


def observation_windows(
    section: TaskSection, streams: Container[str], where: str
) -> dict[str, Span]:
    """Return the windows of a task's streams, first and last frame counted from now.

    Raise ConfigError for one that looks into the future: nobody has seen it yet.
    """
    windows = {name: span for name, span in split_windows(section).items() if name in streams}
    for name, (first, last) in windows.items():
        if last > 0:
            raise ConfigError(
                f"{where}.delta_frames.{name}: found [{first}, {last}], which looks {last} frames "
                "ahead; an environment has seen none after the frame 0"
            )
    return windows


def tile_to_window(value: Any, span: Span) -> Any:
    """Return a single frame as a whole window; a list of them each; one that has steps already, as
    it is."""
    if isinstance(value, list):
        return [tile_to_window(each, span) for each in value]
    cell = np.asarray(value)
    return np.repeat(cell[None], span[1] - span[0] + 1, axis=0) if cell.ndim == 1 else value
