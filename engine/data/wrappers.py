"""Sources of rows: the catalogue, and the wrappers that a recipe's data section asks for.

Named sources that belong to one signal (`digits`, `shapes`) are in that modality's own
catalogue. A stream has no length and no row by index until it is given a `limit`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...modalities.base import Source, StreamingSource
from ...modalities.messages import did_you_mean
from ...modalities.paths import FileLister, cell_files


def rename(source: Source, columns: Mapping[str, str]) -> Source:
    """The source with further names for its columns: wanted name -> name that it has."""
    if isinstance(source, StreamingSource):
        return MappedStream(source, columns)
    return RenamedColumns(source, columns)


def limit(source: Source, count: int) -> Source:
    """The first `count` rows. Of a stream, they are held in memory, and have a length."""
    if isinstance(source, StreamingSource):
        return InMemoryPrefix(source, count)
    return Limited(source, count)


class RenamedColumns(Source):
    """Rows under the names that a recipe wants; the names that they have stay too."""

    def __init__(self, source: Source, columns: Mapping[str, str]) -> None:
        self.source, self.names = source, dict(columns)
        self.columns = _renamed(source.columns or tuple(source[0]), self.names)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return _apply(self.source[index], self.names)

    def key(self, index: int) -> str:
        return self.source.key(index)

    @property
    def episodes(self) -> Sequence[range]:
        return self.source.episodes

    def array(self, column: str) -> np.ndarray:
        return self.source.array(self.names.get(column, column))

    def identity(self, index: int, column: str, files: FileLister = cell_files) -> str:
        return self.source.identity(index, self.names.get(column, column), files)

    def fingerprint(self) -> str:
        return f"{self.source.fingerprint()}{sorted(self.names.items())}"


class MappedStream(StreamingSource):
    """`RenamedColumns`, of a stream."""

    def __init__(self, source: StreamingSource, columns: Mapping[str, str]) -> None:
        self.source, self.names = source, dict(columns)
        self.columns = _renamed(source.columns or tuple(next(iter(source), {})), self.names)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (_apply(row, self.names) for row in self.source)

    def key(self, index: int) -> str:
        return self.source.key(index)

    def fingerprint(self) -> str:
        return f"{self.source.fingerprint()}{sorted(self.names.items())}"


class Limited(Source):
    """The first rows of a source; all of them where it has fewer."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit = source, limit
        self.columns = source.columns

    def __len__(self) -> int:
        return min(self.limit, len(self.source))

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.source[index % len(self)]

    def key(self, index: int) -> str:
        return self.source.key(index)

    @property
    def episodes(self) -> Sequence[range]:
        """The last one may be cut short."""
        few = range(len(self))
        return [few[e.start : e.stop] for e in self.source.episodes if e.start < len(few)]

    def array(self, column: str) -> np.ndarray:
        return self.source.array(column)[: len(self)]

    def identity(self, index: int, column: str, files: FileLister = cell_files) -> str:
        return self.source.identity(index, column, files)

    def fingerprint(self) -> str:
        return f"{self.source.fingerprint()}[:{self.limit}]"


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
    """The first rows of a stream, read when first asked for and held in memory."""

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


def _renamed(known: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    for wanted, found in names.items():
        if found not in known:
            raise ValueError(
                f"columns.{wanted}: there is no column {found!r}{did_you_mean(found, known)}"
            )
    return (*names, *(name for name in known if name not in names))


def _apply(row: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {**row, **{wanted: row[found] for wanted, found in names.items()}}
