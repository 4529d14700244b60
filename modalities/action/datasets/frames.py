"""Tables whose rows are the frames of recordings, episode after episode.

Columns of numbers are arrays in memory, so that a window is a slice; large values (pictures)
stay in their table until they are read.

Legend: `N` rows.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...base import ReadError, Source
from ...paths import stamp
from ..table import EPISODE, FRAME, columns_of, has_nulls, innermost, is_number, read_table
from ..table import column as read_column


class Recordings(Source):
    """Rows of an Arrow table with `episode_index`. Raise ValueError where it lacks one, or where
    an episode is torn apart. Subclasses call `_open`."""

    name: str

    def _open(self, table: pa.Table, episode: str = EPISODE) -> None:
        self.table, self.columns = table, tuple(table.column_names)
        if episode not in self.columns:
            raise ValueError(
                f"{self.name}: has no column {episode!r} among {', '.join(self.columns)}; it says "
                "which rows are one recording"
            )
        self._cells: dict[str, Any] = {}
        self._arrays: dict[str, np.ndarray] = {}
        numbers = self.column_array(episode).reshape(-1)
        unknown = np.flatnonzero(np.isnan(numbers.astype(float)))
        if len(unknown):
            raise ValueError(f"{self.name}: {episode} of row {unknown[0]} is empty; fill it in")
        borders = self._borders(numbers)
        changes = {*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), *borders}
        starts = [0, *sorted(changes), len(numbers)]
        self._episodes = [range(a, b) for a, b in itertools.pairwise(starts) if a < b]
        self.numbers = [int(numbers[e.start]) for e in self._episodes]
        file_of = np.searchsorted(borders, [e.start for e in self._episodes], "right")
        read_files: set[tuple[int, int]] = set()
        for file, number in zip(file_of.tolist(), self.numbers, strict=True):
            if (file, number) in read_files:
                raise ValueError(
                    f"{self.name}: the rows of episode {number} are torn apart; sort by {episode}"
                )
            read_files.add((file, number))
        self._of_row = np.repeat(np.arange(len(self._episodes)), [len(e) for e in self._episodes])

    def _borders(self, numbers: np.ndarray) -> list[int]:
        """Return rows at which another recording begins, even if its number is equal."""
        return []

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def episodes(self) -> Sequence[range]:
        return self._episodes

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return {name: self._cell(name, index % len(self)) for name in self.columns}

    def cell(self, index: int, column: str) -> Any:
        if column not in self.columns or not -len(self) <= index < len(self):
            return self[index][column]
        return self._cell(column, index % len(self))

    def _cell(self, name: str, index: int) -> Any:
        if name not in self._cells:
            self._cells[name] = self._cells_of(name)
        cell = self._cells[name][index]
        if isinstance(cell, pa.Scalar):
            return cell.as_py()
        return cell.item() if isinstance(cell, np.generic) else cell

    def _cells_of(self, name: str) -> Any:
        """Return the column as something that an index finds a cell in, fast."""
        kind = self.table.schema.field(name).type
        if is_number(innermost(kind)) and not has_nulls(self.table.column(name)):
            with contextlib.suppress(ReadError):  # lists of different lengths
                return read_column(self.table, name, self.name)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return self.table.column(name).to_pylist()
        return self.table.column(name)

    def column_array(self, column: str) -> np.ndarray:
        """Return `[N, ...]`, NaN where a cell is empty; ValueError for a column of texts, pictures,
        or rows of other lengths."""
        if isinstance(self._cells.get(column), np.ndarray):
            return self._cells[column]
        if column not in self._arrays:
            kind = self.table.schema.field(column).type
            if not is_number(innermost(kind)):
                raise ValueError(f"{column} holds {kind}, expected numbers")
            self._arrays[column] = read_column(self.table, column, self.name, nulls=True)
        return self._arrays[column]

    def named_cell(self, index: int, column: str) -> Any:
        kind = self.table.schema.field(column).type if column in self.table.column_names else None
        return None if kind is None or is_number(innermost(kind)) else self._cell(column, index)

    def key(self, index: int) -> str:
        episode = int(self._of_row[index])
        frame = index - self._episodes[episode].start
        return f"{self.name}/{self.numbers[episode]}/{frame}"


class Frames(Recordings):
    """CSV or Parquet files with one row a frame and a column that numbers the recordings.

    path: a file, a glob pattern, or a list of them. join: columns put side by side, `{action:
    [a0, a1, a2]}`. episode: the column that numbers the recordings of a file. A recording continues
    in the next file only if it has the same number there and `frame_index` continues.
    """

    def __init__(
        self,
        *,
        path: str | list[str],
        join: dict[str, list[str]] | None = None,
        episode: str = EPISODE,
    ) -> None:
        self.files, self.join, self.episode = _files(path), join or {}, episode
        self.name = self.files[0].stem
        tables = [read_table(file) for file in self.files]
        try:
            table = pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"path: {self.files[0]} and others differ: {reason}") from error
        self._starts = np.cumsum([0, *(len(each) for each in tables[:-1])]).tolist()
        for name, parts in self.join.items():
            table = self._joined(table, name, parts)
        self._open(table, episode)

    def _joined(self, table: pa.Table, name: str, parts: Sequence[str]) -> pa.Table:
        try:
            values, _ = columns_of(table, parts, self.files[0], nulls=True)
        except ReadError as error:
            raise ValueError(f"join.{name}: {error}") from error
        flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
        cells = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        if name in table.column_names:
            table = table.drop_columns([name])
        return table.append_column(name, cells)

    def _borders(self, numbers: np.ndarray) -> list[int]:
        frames = self.column_array(FRAME).reshape(-1) if FRAME in self.columns else None
        starts = [start for start in self._starts if 0 < start < len(numbers)]
        return [
            start
            for start in starts
            if frames is None
            or numbers[start] != numbers[start - 1]
            or frames[start] != frames[start - 1] + 1
        ]

    def key(self, index: int) -> str:
        file = int(np.searchsorted(self._starts, index, "right")) - 1
        name = super().key(index).partition("/")[2]
        return f"{self._names[file]}/{name}"

    @functools.cached_property
    def _names(self) -> list[str]:
        stems = [file.stem for file in self.files]
        return stems if len(set(stems)) == len(stems) else [file.as_posix() for file in self.files]

    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        return print_of(self.files, repr(sorted(self.join.items())), self.episode)


def print_of(files: Iterable[Path], *settings: str) -> str:
    """Changes when a file is added, taken away, or has another size or time."""
    parts = [*settings, *map(stamp, files)]
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def _files(path: str | list[str]) -> list[Path]:
    paths: list[Path] = []
    for pattern in [path] if isinstance(path, str) else path:
        path_ = Path(pattern).expanduser().absolute()
        names = [str(path_)] if path_.exists() else sorted(glob.glob(str(path_), recursive=True))  # noqa: PTH207
        if not names:
            raise ValueError(f"path: {path_}: there is no such file")
        paths += map(Path, names)
    if not paths:
        raise ValueError("path: names no file")
    double = [file for file in paths if paths.count(file) > 1]
    if double:
        raise ValueError(f"path: names {double[0]} twice")
    return paths
