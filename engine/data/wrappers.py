"""Sources of rows: the catalogue, and the wrappers that a recipe's data section requests.

Named sources that belong to one signal (`digits`, `shapes`) are in that modality's own
catalogue. A stream has no length and no row by index until it is given a `limit`.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...modalities.base import ReadError, Source, StreamingSource, Unreadable
from ...modalities.messages import did_you_mean
from ...modalities.paths import FileLister, cell_files

Names = Mapping[str, str | Mapping[str, str]]
"""New name of a column -> the name that it has, or the columns that make one cell of keys:
`audio: {path: audio_filepath, offset: offset}`."""


def rename(source: Source, columns: Names) -> Source:
    """Return the source with further names for its columns."""
    if isinstance(source, StreamingSource):
        return MappedStream(source, columns)
    return RenamedColumns(source, columns)


def limit(source: Source, count: int) -> Source:
    """Return the first `count` rows. Of a stream, they are held in memory, and have a length."""
    if isinstance(source, StreamingSource):
        return InMemoryPrefix(source, count)
    return Subset(source, np.arange(min(count, len(source))))


def column_names(source: Source) -> tuple[str, ...]:
    """Return the columns of a source: those that it announces, else those of its first row."""
    if isinstance(source, StreamingSource) and not source.columns:
        return tuple(next(iter(source), {}))
    return source.columns or tuple(source[0])


class Wrapped(Source):
    """Another source with something changed; all questions are passed on to it."""

    def __init__(self, source: Source) -> None:
        self.source, self.columns = source, column_names(source)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[index]

    def cell(self, index: int, column: str) -> Any:
        return self.source.cell(index, column)

    def key(self, index: int) -> str:
        return self.source.key(index)

    @property
    def episodes(self) -> Sequence[range]:
        return self.source.episodes

    @property
    def groups(self) -> Sequence[object]:
        return self.source.groups

    @property
    def faults(self) -> Mapping[int, str]:  # type: ignore[override]
        return self.source.faults

    @property
    def ignored(self) -> Mapping[str, str]:  # type: ignore[override]
        return self.source.ignored

    @property
    def notes(self) -> Sequence[str]:  # type: ignore[override]
        return self.source.notes

    def column_array(self, column: str) -> np.ndarray:
        return self.source.column_array(column)

    def cell_key(self, index: int, column: str, files: FileLister = cell_files) -> str:
        return self.source.cell_key(index, column, files)

    def named_cell(self, index: int, column: str) -> Any:
        return self.source.named_cell(index, column)


class RenamedColumns(Wrapped):
    """Rows under the names that a recipe wants; the names that they have stay too."""

    def __init__(self, source: Source, columns: Names) -> None:
        super().__init__(source)
        self.names = dict(columns)
        self.columns = _renamed(self.columns, self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return _apply(self.source[index], self.names)

    def cell(self, index: int, column: str) -> Any:
        name = self.names.get(column, column)
        if isinstance(name, str):
            return self.source.cell(index, name)
        return _joined({key: self.source.cell(index, part) for key, part in name.items()})

    def column_array(self, column: str) -> np.ndarray:
        name = self.names.get(column, column)
        return (
            self.source.column_array(name)
            if isinstance(name, str)
            else Source.column_array(self, column)
        )

    def cell_key(self, index: int, column: str, files: FileLister = cell_files) -> str:
        name = self.names.get(column, column)
        if isinstance(name, str):
            return self.source.cell_key(index, name, files)
        parts = {key: self.source.cell_key(index, part, files) for key, part in name.items()}
        return f"{sorted(parts.items())}"

    def named_cell(self, index: int, column: str) -> Any:
        name = self.names.get(column, column)
        if isinstance(name, str):
            return self.source.named_cell(index, name)
        return _joined({key: self.source.named_cell(index, part) for key, part in name.items()})

    def fingerprint(self) -> str:
        return f"{self.source.fingerprint()}{sorted(self.names.items())}"


class Subset(Wrapped):
    """Some rows of another source, in the order given.

    faults: further rows of the source that cannot be used, by number, with the reason.
    """

    def __init__(
        self, source: Source, rows: np.ndarray, faults: Mapping[int, str] | None = None
    ) -> None:
        super().__init__(source)
        self.rows = np.asarray(rows, np.int64)
        self.refused = {**source.faults, **(faults or {})}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self._check(index)
        return self.source[int(self.rows[index])]

    def cell(self, index: int, column: str) -> Any:
        self._check(index)
        return self.source.cell(int(self.rows[index]), column)

    def _check(self, index: int) -> None:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        row = int(self.rows[index])
        if row in self.refused:
            raise ReadError(self.source.key(row), self.refused[row], "a row that can be used")

    def key(self, index: int) -> str:
        return self.source.key(int(self.rows[index]))

    @functools.cached_property
    def episodes(self) -> Sequence[range]:
        """Those that have a row here, as far as they have; none if rows are not in order."""
        if len(self.rows) > 1 and (np.diff(self.rows) <= 0).any():
            return ()
        ends = [np.searchsorted(self.rows, (e.start, e.stop)) for e in self.source.episodes]
        return [range(int(a), int(b)) for a, b in ends if a < b]

    @property
    def groups(self) -> Sequence[object]:
        groups = self.source.groups
        return [groups[int(row)] for row in self.rows] if groups else ()

    @functools.cached_property
    def faults(self) -> Mapping[int, str]:  # type: ignore[override]
        if not self.refused:
            return {}
        rows = enumerate(self.rows.tolist())
        return {index: self.refused[row] for index, row in rows if row in self.refused}

    def column_array(self, column: str) -> np.ndarray:
        return self.source.column_array(column)[self.rows]

    def cell_key(self, index: int, column: str, files: FileLister = cell_files) -> str:
        return self.source.cell_key(int(self.rows[index]), column, files)

    def named_cell(self, index: int, column: str) -> Any:
        return self.source.named_cell(int(self.rows[index]), column)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.rows.tobytes()).hexdigest()[:16]
        return f"{self.source.fingerprint()}[{digest}]"


class MappedStream(StreamingSource):
    """`RenamedColumns`, of a stream."""

    def __init__(self, source: StreamingSource, columns: Names) -> None:
        self.source, self.names = source, dict(columns)
        self.columns = _renamed(column_names(source), self.names)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (_apply(row, self.names) for row in self.source)

    def shards(self) -> Sequence[StreamingSource]:
        return [MappedStream(shard, self.names) for shard in self.source.shards()]

    def row_count(self) -> int | None:
        return self.source.row_count()

    def key(self, index: int) -> str:
        return self.source.key(index)

    def fingerprint(self) -> str:
        return f"{self.source.fingerprint()}{sorted(self.names.items())}"


class RowList(Source):
    """Rows that are in memory."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = [dict(row) for row in rows]
        self.columns = tuple(self.rows[0]) if self.rows else ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]

    def fingerprint(self) -> str:
        return "rows in memory"


class InMemoryPrefix(Source):
    """The first rows of a stream, read on first access and held in memory."""

    def __init__(self, source: StreamingSource, limit: int) -> None:
        self.source, self.limit = source, limit
        self.columns = source.columns

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        return list(itertools.islice(iter(self.source), self.limit))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]

    def key(self, index: int) -> str:
        return self.source.key(index)

    def fingerprint(self) -> str:
        return f"{self.source.fingerprint()}[:{self.limit}]"

    @property
    def ignored(self) -> Mapping[str, str]:  # type: ignore[override]
        return self.source.ignored


def _renamed(known: tuple[str, ...], names: Names) -> tuple[str, ...]:
    for new, old in names.items():
        parts = {new: old} if isinstance(old, str) else {f"{new}.{k}": v for k, v in old.items()}
        for place, name in parts.items():
            if name not in known:
                raise ValueError(
                    f"columns.{place}: there is no column {name!r}{did_you_mean(name, known)}"
                )
    return (*names, *(name for name in known if name not in names))


def _apply(row: dict[str, Any], names: Names) -> dict[str, Any]:
    cells = {
        new: row[old] if isinstance(old, str) else _joined({k: row[v] for k, v in old.items()})
        for new, old in names.items()
    }
    return {**row, **cells}


def _joined(cells: Mapping[str, Any]) -> Any:
    """Return one cell made of several; a `path` that is a cell of keys itself adds its own."""
    for cell in cells.values():
        if isinstance(cell, Unreadable):
            return cell
    path = cells.get("path")
    if isinstance(path, Mapping):
        return {**path, **{key: cell for key, cell in cells.items() if key != "path"}}
    return dict(cells)
