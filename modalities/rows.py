"""Rows of data, wherever they come from: by index, or as a stream.

`base.py` names these classes too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from .paths import FileLister, cell_files, cell_identity


@dataclass(frozen=True)
class Unreadable:
    """A cell that the source could not decode, with the reason in one line.

    A row that uses it fails; a row whose task does not use the column is not affected.
    """

    reason: str


class Source:
    """Rows of data, by index: `Class(**keywords of the recipe's data section)`.

    A row is a dict of cells; a cell is whatever the modality's `read` takes (a path, bytes,
    an array) or a plain value. Opening a source is cheap; a row is made when asked for.

    faults: rows that are known to be unreadable when the source is opened, with the reason.
    ignored: files that belong to no row (another format, no name in a list), with the reason.
    notes: what a user may not expect of the rows, one line each; `check --data` shows them.
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
        """For each row the name of what it belongs to (a subject, a speaker, an episode), if rows
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

    def __len__(self) -> int:
        raise TypeError("a streaming source has no length")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        raise NotImplementedError
