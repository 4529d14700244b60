"""LeRobotDataset folders, v2.1 and v3.0, as rows: read as Parquet, videos by PyAV.

Legend: `N` rows (frames of all episodes).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from ..table import EPISODE, FRAME
from .frames import Recordings, print_of
from .lerobot_meta import Episode, Layout, read_layout
from .video import VideoFrame, pyav

TASK = "task"


class LeRobot(Recordings):
    """Rows with the folder's columns (`observation.state`, `action`, `timestamp`, ...), `task`
    (the instruction), and frames of videos, decoded on access.

    path: the folder. split: a name of `splits` in its `info.json`, or episodes as `0:80`.
    videos: False leaves the columns of videos out. Raise ValueError in one line for a version
    that is not known, and for files, rows and frames that are missing.
    """

    def __init__(self, *, path: str, split: str | None = None, videos: bool = True) -> None:
        folder = Path(path).expanduser().absolute()
        if not folder.is_dir():
            raise ValueError(f"path: {folder}: there is no such folder")
        self.name = folder.name
        self.layout = read_layout(folder)
        self.parts = _episodes_of(self.layout, split)
        self.cameras = tuple(self.layout.videos) if videos else ()
        if self.cameras:
            pyav()
            _check_files([v for part in self.parts for v, _ in part.videos.values()])
        self._open(_with_tasks(_rows(self.layout, self.parts), self.layout))
        _check_frames(self, self.parts)
        by_number = {part.index: part for part in self.parts}
        self._part = [by_number[number] for number in self.numbers]
        self._time = self.column_array("timestamp").reshape(-1) if self.cameras else np.zeros(0)
        self._near = 0.5 / float(self.layout.info["fps"])
        self.columns = (*self.columns, *self.cameras)

    def _cell(self, name: str, index: int) -> Any:
        if name in self.cameras:
            path, begin = self._part[self._of_row[index]].videos[name]
            return VideoFrame(path, begin + float(self._time[index]), self._near)
        cell = super()._cell(name, index)
        if isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path"):
            return {**cell, "path": str(self.layout.folder / cell["path"])}
        return cell

    def column_array(self, column: str) -> np.ndarray:
        if column in getattr(self, "cameras", ()):
            raise ValueError(f"{column} holds the frames of a video, expected numbers")
        return super().column_array(column)

    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        meta = [f for f in sorted((self.layout.folder / "meta").rglob("*")) if f.is_file()]
        data = sorted({part.data for part in self.parts})
        videos = sorted({part.videos[key][0] for part in self.parts for key in self.cameras})
        return print_of([*meta, *data, *videos], repr([part.index for part in self.parts]))


def _episodes_of(layout: Layout, split: str | None) -> list[Episode]:
    """Return the episodes of a split, in the order of their numbers."""
    episodes = sorted(layout.episodes, key=lambda episode: episode.index)
    if not episodes:
        raise ValueError(f"{layout.folder}/meta: lists no episode")
    if split is None:
        return episodes
    splits = layout.info.get("splits") or {}
    first, colon, last = str(splits.get(split, split)).partition(":")
    try:
        inside = range(int(first or 0), int(last) if last else episodes[-1].index + 1)
    except ValueError:
        inside = range(0)
    chosen = [episode for episode in episodes if episode.index in inside]
    if not colon or not chosen:
        raise ValueError(
            f"split: found {split!r}, expected {', '.join(map(repr, splits)) or 'no name'} or "
            f"episodes of the {len(episodes)} there are, as '0:{len(episodes)}'"
        )
    return chosen


def _check_files(files: Sequence[Path]) -> None:
    missing = [file for file in dict.fromkeys(files) if not file.is_file()]
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ValueError(
            f"{missing[0]}: there is no such file{others}; copy the whole folder again"
        )


def _rows(layout: Layout, parts: Sequence[Episode]) -> pa.Table:
    """Return the rows of these episodes, in the order of their numbers and frames."""
    files = list(dict.fromkeys(part.data for part in parts))
    _check_files(files)
    try:
        table = pa.concat_tables([parquet.read_table(f) for f in files], promote_options="default")
    except (pa.ArrowException, OSError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{layout.folder}/data: cannot be read: {message}") from error
    lacks = [c for c in (EPISODE, FRAME, "timestamp") if c not in table.column_names]
    if lacks:
        raise ValueError(f"{layout.folder}/data: has no column {', '.join(lacks)}")
    numbers = pa.array([part.index for part in parts], table.schema.field(EPISODE).type)
    return table.filter(pc.is_in(table[EPISODE], value_set=numbers))


def _with_tasks(table: pa.Table, layout: Layout) -> pa.Table:
    """`task_index` in words, as the column `task`."""
    if "task_index" not in table.column_names or TASK in table.column_names:
        return table
    indices = table["task_index"].to_pylist()
    unknown = set(indices) - set(layout.tasks)
    if unknown:
        raise ValueError(f"{layout.folder}/meta: task_index {min(unknown)} is among no tasks")
    return table.append_column(TASK, pa.array([layout.tasks[i] for i in indices], pa.string()))


def _check_frames(source: LeRobot, parts: Sequence[Episode]) -> None:
    """Raise ValueError if an episode has other rows than its description, or lacks frames."""
    by_number = dict(zip(source.numbers, source.episodes, strict=True))
    frames = source.column_array(FRAME).reshape(-1)
    for part in parts:
        rows = by_number.get(part.index, range(0))
        if len(rows) != part.length:
            raise ValueError(
                f"{part.data}: episode {part.index} has {len(rows)} rows, its description has "
                f"{part.length}; frames are missing, copy the file again"
            )
        mismatches = np.flatnonzero(frames[rows.start : rows.stop] != np.arange(part.length))
        if len(mismatches):
            raise ValueError(
                f"{part.data}: episode {part.index} has frame {frames[rows.start + mismatches[0]]} "
                "in "
                f"the place of {mismatches[0]}; frames are missing"
            )
