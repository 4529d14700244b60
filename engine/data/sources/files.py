"""What the sources of local files share: files of rows, slices, file names in columns, row keys.

A file of one kind is a `FileRows`; `Files` puts several together. Never touches the network.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....modalities.base import ReadError, Source
from ....modalities.messages import did_you_mean
from ....modalities.paths import FileLister, address_of, cell_files, cell_identity, map_paths
from ...utils import find_files, find_folder, fingerprint_of

ALL = "train"
"""The name of the one split that files have; its slices are those of 🤗 datasets."""

_COMPRESSED = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}


class FileRows(ABC):
    """The rows of one file.

    columns: of all rows, in the order in which they appear. faults: rows that the file holds and
    that cannot be read, by number, with the reason. ignored: what of the file belongs to no row.
    notes: as those of a source.
    settings: what beside the file's bytes decides its cells; part of their identities.
    """

    columns: tuple[str, ...]
    faults: Mapping[int, str] = {}
    ignored: Mapping[str, str] = {}
    notes: Sequence[str] = ()
    settings: tuple[object, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, index: int) -> dict[str, Any]:
        """Return the cells of a row that is not among the faults."""

    def cell(self, index: int, column: str) -> Any:
        """Return one cell; None if the row lacks it."""
        return self.row(index).get(column)

    def name(self, index: int) -> str:
        """Return the name of a row within its file."""
        return str(index)


class Files(Source):
    """Rows of local files of one kind.

    path: a file, a glob pattern, or a list of them. split: 🤗 datasets' slices, for example
    `train[:80%]`. paths: columns that hold file names (or lists of them), taken from `root` (by
    default the folder of the data file). Raise ValueError that names the file. Rows keep their
    numbers in the file, also behind a slice.
    """

    def __init__(
        self,
        *,
        path: str | list[str],
        split: str = ALL,
        paths: list[str] | None = None,
        root: str | None = None,
    ) -> None:
        self.files, self.paths = find_files(path), tuple(paths or ())
        self.address = address_of(path) if isinstance(path, str) else None
        self.root = self._root(root)
        self.tables = self.read_files()
        self.columns = tuple(dict.fromkeys(c for table in self.tables for c in table.columns))
        self._starts = np.cumsum([0, *map(len, self.tables)])
        self.rows = slice_rows(split, int(self._starts[-1]))
        if not self._starts[-1]:
            raise ValueError(f"{self.files[0]}: has no rows")
        if not len(self.rows):
            raise ValueError(f"split: {split} has no row of the {self._starts[-1]}")
        for name in self.paths:
            if name not in self.columns:
                raise ValueError(
                    f"{self.files[0]}: paths names no column{did_you_mean(name, self.columns)}"
                )
        self._names = short_names(self.files)
        self._fingerprint = fingerprint_of(
            self.files, *(table.settings for table in self.tables), split, str(self.root)
        )

    def read_files(self) -> Sequence[FileRows]:
        """Return the rows of each of `self.files`."""
        return [self.read_file(file) for file in self.files]

    def read_file(self, file: Path) -> FileRows:
        """Return the rows of a file. Raise ValueError that names it."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        table, number = self._locate(index)
        row = dict.fromkeys(self.columns) | table.row(number)
        for name in self.paths:
            row[name] = self._from_root(row[name])
        return row

    def cell(self, index: int, column: str) -> Any:
        table, number = self._locate(index)
        value = table.cell(number, column)
        return self._from_root(value) if column in self.paths else value

    def key(self, index: int) -> str:
        file, number = self._position(index)
        return f"{self._names[file]}#{self.tables[file].name(number)}"

    @functools.cached_property
    def faults(self) -> Mapping[int, str]:  # type: ignore[override]
        index_of = {int(row): index for index, row in enumerate(self.rows)}
        starts = zip(self._starts, self.tables, strict=False)
        listed = {int(s) + n: text for s, table in starts for n, text in table.faults.items()}
        return {index_of[row]: text for row, text in listed.items() if row in index_of}

    @property
    def ignored(self) -> Mapping[str, str]:  # type: ignore[override]
        return {name: reason for table in self.tables for name, reason in table.ignored.items()}

    @property
    def notes(self) -> Sequence[str]:  # type: ignore[override]
        return [note for table in self.tables for note in table.notes]

    def cell_key(self, index: int, column: str, files: FileLister = cell_files) -> str:
        """As every source's, but that a cell has one name behind every slice and list of files."""
        file, number = self._position(index)
        cell = self.named_cell(index, column)
        name = None if cell is None else cell_identity(cell, files)
        return name or f"{self._prints[file]}|{self.tables[file].name(number)}|{column}"

    def named_cell(self, index: int, column: str) -> Any:
        file, number = self._position(index)
        return None if number in self.tables[file].faults else self.cell(index, column)

    @functools.cached_property
    def _prints(self) -> list[str]:
        tables = zip(self.files, self.tables, strict=True)
        return [fingerprint_of([file], table.settings) for file, table in tables]

    def fingerprint(self) -> str:
        return self._fingerprint

    def _position(self, index: int) -> tuple[int, int]:
        """Return the number of a row's file and its number in it."""
        row = self.rows[index]
        file = int(np.searchsorted(self._starts, row, "right")) - 1
        return file, int(row - self._starts[file])

    def _locate(self, index: int) -> tuple[FileRows, int]:
        file, number = self._position(index)
        table = self.tables[file]
        if number in table.faults:
            raise ReadError(self.key(index), table.faults[number], "a row that can be read")
        return table, number

    def _from_root(self, cell: Any) -> Any:
        """Return a cell whose file names are taken from `root`; an empty one stays empty."""
        return map_paths(cell, lambda path: str(self.root / path) if str(path) else path)

    def _root(self, root: str | None) -> Path:
        if root is not None and not self.paths:
            raise ValueError("root: is of no use without paths: [columns that hold file names]")
        if root is not None:
            return find_folder(root)
        if self.paths and self.address is not None:
            return find_folder(self.address.rpartition("/")[0])
        folders = {file.parent for file in self.files}
        if self.paths and len(folders) > 1:
            raise ValueError(f"root: name one folder, the files are in {len(folders)} folders")
        return self.files[0].parent


def slice_rows(split: str, count: int) -> np.ndarray:
    """Return the numbers of the rows that a slice of 🤗 datasets takes out of `count`."""
    if split == ALL:
        return np.arange(count)
    from datasets import ReadInstruction

    try:
        parts = ReadInstruction.from_spec(split).to_absolute({ALL: count})
    except (ValueError, AssertionError) as error:
        raise ValueError(
            f"split: found {split!r}; a file has one split, {ALL}, and its slices, such as "
            f"{ALL}[:80%]; rows are chosen by their cells with where: {{column: value}}"
        ) from error
    ranges = [np.arange(part.from_, part.to) for part in parts]
    rows = np.concatenate(ranges)
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"split: {split} takes rows twice; name slices that do not overlap")
    return rows


def short_names(files: Sequence[Path]) -> list[str]:
    """Return names that differ: those of the files, with as many of their folders as needed."""
    names = [file.name for file in files]
    depth = 1
    while len(set(names)) < len(names) and depth < max(len(file.parts) for file in files):
        depth += 1
        names = ["/".join(file.parts[-depth:]) for file in files]
    return names


def read_bytes(file: Path) -> bytes:
    """Return the bytes of a file, decompressed. Raise ValueError if that is not possible."""
    data = file.read_bytes()
    for magic, decompress in _COMPRESSED.items():
        if data.startswith(magic):
            try:
                return decompress(data)
            except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                raise ValueError(f"{file}: its compressed data are broken ({error})") from error
    return data


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name that is there twice."""
    previous: set[str] = set()
    for name in names:
        if name in previous:
            return name
        previous.add(name)
    return None
