"""Tables whose rows are the frames of recordings, episode after episode.

Columns of numbers are arrays in memory, so that a window is a slice; what is large (pictures)
stays in its table until it is asked for.

Legend: `N` rows.
"""

from __future__ import annotations

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
from ..table import column, columns_of, innermost, is_number, read_table

EPISODE, FRAME = "episode_index", "frame_index"


class Recordings(Source):
    """Rows of an Arrow table with `episode_index`. Raises ValueError where it lacks one, or where
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
        numbers = self.array(episode).reshape(-1)
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        self._episodes = [range(a, b) for a, b in itertools.pairwise(starts) if a < b]
        self.numbers = [int(numbers[e.start]) for e in self._episodes]
        if len(set(self.numbers)) < len(self.numbers):
            torn = next(n for n in self.numbers if self.numbers.count(n) > 1)
            raise ValueError(
                f"{self.name}: the rows of episode {torn} are torn apart; sort by {episode}"
            )
        self._of_row = np.repeat(np.arange(len(self._episodes)), [len(e) for e in self._episodes])

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def episodes(self) -> Sequence[range]:
        return self._episodes

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return {name: self._cell(name, index % len(self)) for name in self.columns}

    def _cell(self, name: str, index: int) -> Any:
        if name not in self._cells:
            self._cells[name] = self._cells_of(name)
        cell = self._cells[name][index]
        if isinstance(cell, pa.Scalar):
            return cell.as_py()
        return cell.item() if isinstance(cell, np.generic) else cell

    def _cells_of(self, name: str) -> Any:
        """The column as something that an index finds a cell in, fast."""
        kind = self.table.schema.field(name).type
        if is_number(innermost(kind)):
            return column(self.table, name, self.name)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return self.table.column(name).to_pylist()
        return self.table.column(name)

    def array(self, column: str) -> np.ndarray:
        """`[N, ...]`; ValueError for a column of texts, pictures, or rows of other lengths."""
        if column not in self._cells:
            self._cells[column] = self._cells_of(column)
        found = self._cells[column]
        if not isinstance(found, np.ndarray):
            kind = self.table.schema.field(column).type
            raise ValueError(f"{column} holds {kind}, expected numbers")
        return found

    def named_cell(self, index: int, column: str) -> Any:
        kind = self.table.schema.field(column).type if column in self.table.column_names else None
        return None if kind is None or is_number(innermost(kind)) else self._cell(column, index)

    def key(self, index: int) -> str:
        place = int(self._of_row[index])
        frame = index - self._episodes[place].start
        return f"{self.name}/{self.numbers[place]}/{frame}"


class Frames(Recordings):
    """CSV or Parquet files with one row a frame and a column that numbers the recordings.

    path: a file, a glob pattern, or a list of them. join: columns put side by side, `{action:
    [a0, a1, a2]}`. episode: the column that numbers the recordings.
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
            told = " ".join(str(error).split())
            raise ValueError(f"path: {self.files[0]} and others differ: {told}") from error
        for name, parts in self.join.items():
            table = self._joined(table, name, parts)
        self._open(table, episode)

    def _joined(self, table: pa.Table, name: str, parts: Sequence[str]) -> pa.Table:
        try:
            values, _ = columns_of(table, parts, self.files[0])
        except ReadError as error:
            raise ValueError(f"join.{name}: {error}") from error
        flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
        cells = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        if name in table.column_names:
            table = table.drop_columns([name])
        return table.append_column(name, cells)

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
    found: list[Path] = []
    for pattern in [path] if isinstance(path, str) else path:
        whole = Path(pattern).expanduser().absolute()
        names = [str(whole)] if whole.exists() else sorted(glob.glob(str(whole), recursive=True))  # noqa: PTH207
        if not names:
            raise ValueError(f"path: {whole}: there is no such file")
        found += map(Path, names)
    if not found:
        raise ValueError("path: names no file")
    return found
