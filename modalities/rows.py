"""Rows of data, wherever they come from: by index, or as a stream.

`base.py` names these classes too.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from .paths import FileLister, cell_files, cell_identity, read_lines, stamp


@dataclass(frozen=True)
class Unreadable:
    """A cell that the source could not decode, with the reason in one line.

    A row that uses it fails; a row whose task does not use the column is not affected.
    """

    reason: str


class Source:
    """Rows of data, by index: `Class(**keywords of the recipe's data section)`.

    A row is a dict of cells; a cell is a value that the modality's `read` takes (a path, bytes,
    an array) or a plain value. Opening a source is cheap; a row is made on access.

    faults: rows that are known to be unreadable when the source is opened, with the reason.
    ignored: files that belong to no row (another format, no name in a list), with the reason.
    notes: surprising properties of the rows, one line each; `check --data` shows them.
    """

    columns: tuple[str, ...] = ()
    faults: Mapping[int, str] = MappingProxyType({})
    ignored: Mapping[str, str] = MappingProxyType({})
    notes: Sequence[str] = ()
    path_options: ClassVar[tuple[str, ...]] = ("annotations", "images", "path", "root")
    """Options that name files or folders: relative ones are another data set in another folder."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> dict[str, Any]:
        raise NotImplementedError

    def cell(self, index: int, column: str) -> Any:
        """Return one cell of a row; sources whose other cells are costly do not read them."""
        return self[index][column]

    def key(self, index: int) -> str:
        """Return the name of a row, for errors and caches."""
        return str(index)

    def fingerprint(self) -> str:
        """Changes whenever a row may have changed; part of the caches' keys."""
        raise NotImplementedError

    @property
    def episodes(self) -> Sequence[range]:
        """The rows of each episode, where rows are frames in the order of time; else none."""
        return ()

    @property
    def groups(self) -> Sequence[object]:
        """For each row the name of its group (a subject, a speaker, an episode), if rows
        of one are not independent; else none. `holdout` never divides a group."""
        return [number for number, rows in enumerate(self.episodes) for _ in rows]

    def column_array(self, column: str) -> np.ndarray:
        """Return a column of numbers `[rows, ...]`. Raise ValueError if cells differ in shape."""
        return np.stack([np.asarray(self.cell(i, column)) for i in range(len(self))])

    def cell_key(self, index: int, column: str, files: FileLister = cell_files) -> str:
        """Return the name of one cell, under which its cached values are kept: wrappers pass the
        question on, so that the same cell has one name however it is reached.

        files: lists the files that the column's modality opens for a cell; a replaced one is
        another cell.
        """
        cell = self.named_cell(index, column)
        name = None if cell is None else cell_identity(cell, files)
        return name or f"{self._print}|{self.key(index)}|{column}"

    def named_cell(self, index: int, column: str) -> Any:
        """Return a cell that may name files (a path, a folder, a list of them), if it is at hand
        without decoding; None, as by default, where `fingerprint` covers all that it holds."""
        return None

    @functools.cached_property
    def _print(self) -> str:
        return self.fingerprint()


class StreamingSource(Source):
    """Rows in the order that they come, of a number that is not known beforehand."""

    def shards(self) -> Sequence[StreamingSource]:
        """Return parts of the stream that can be read apart, in its order: its files, for example.
        By default there is one, the stream itself."""
        return [self]

    def row_count(self) -> int | None:
        """Return how many rows there are if that is known without reading them, else None."""
        return None

    def __len__(self) -> int:
        raise TypeError("a streaming source has no length")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        raise NotImplementedError


class ListedRows(Source):
    """Rows that are known when the source is opened, as those of an index beside the files.

    rows: of each its name, unique, and its cells; an absent cell is None. files: the columns whose
    cells name files. group: the column of the group of a row (a subject), if there is
    one. Raise ValueError if there is no row, or two have one name.
    """

    def __init__(
        self,
        rows: Sequence[tuple[str, dict[str, Any]]],
        *,
        files: Sequence[str],
        where: str,
        group: str | None = None,
    ) -> None:
        if not rows:
            raise ValueError(f"{where}: has no row")
        self.names, self.rows = [name for name, _ in rows], [cells for _, cells in rows]
        if len(set(self.names)) < len(self.names):
            double = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"{where}: two rows are called {double!r}")
        self.columns = tuple(dict.fromkeys(name for cells in self.rows for name in cells))
        self.files, self.group = frozenset(files), group

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**dict.fromkeys(self.columns), **self.rows[index]}

    def cell(self, index: int, column: str) -> Any:
        return self[index][column]

    def key(self, index: int) -> str:
        return self.names[index]

    @property
    def groups(self) -> Sequence[object]:
        return [cells.get(self.group) for cells in self.rows] if self.group else ()

    def named_cell(self, index: int, column: str) -> Any:
        return self.rows[index].get(column) if column in self.files else None

    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, cells in zip(self.names, self.rows, strict=True):
            behind = [f for c in self.files for f in cell_files(cells.get(c))]
            digest.update(f"{name}|{cells!r}|".encode(errors="surrogateescape"))
            digest.update("|".join(map(stamp, behind)).encode(errors="surrogateescape"))
        return digest.hexdigest()


def existing_folder(path: str) -> Path:
    """Return a folder, absolute. Raise ValueError, with what lies beside it, if it is missing."""
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        nearest = next(parent for parent in folder.parents if parent.is_dir())
        inside = ", ".join(sorted(p.name for p in nearest.iterdir())[:8]) or "nothing"
        raise ValueError(f"path: there is no folder {folder}; {nearest} holds {inside}")
    return folder


def table_lines(file: Path, least: int, form: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and words of each line that is not blank. Raise ValueError for a line of fewer
    than `least` words; `form` describes the expected one."""
    for number, line in enumerate(read_lines(file), 1):
        words = line.split(maxsplit=least - 1) if least else line.split()
        if words and len(words) < least:
            raise ValueError(f"{file}, line {number}: found {line[:60]!r}, expected {form}")
        if words:
            yield number, words
