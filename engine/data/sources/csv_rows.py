"""Comma-separated values as a source.

A column of numbers holds numbers; any other column holds its texts exactly as in the file. So does
one of numbers that floats cannot hold: an integer of 17 digits beside a fraction, `1e400`. A row
of more or fewer cells than the header is a fault of that row: nothing is shifted or filled in.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ....modalities.messages import short_repr
from .files import ALL, FileRows, Files, read_bytes, repeated

INTEGER, FLOAT, TEXT = range(3)
"""Kinds of a column: a cell of a weaker kind makes the whole column of that kind."""

_INTEGER = re.compile(r"0|-?[1-9]\d*", re.ASCII)
_FLOAT = re.compile(r"-?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_LARGE = 15
"""Digits of an integer that a float always holds."""
_NOT_FINITE = frozenset(["nan", "inf", "-inf"])
_PARSE = {INTEGER: int, FLOAT: float, TEXT: str}


class Csv(Files):
    """Comma-separated values with a header line. delimiter: the sign between values.

    An empty cell is null. A column is of integers or of floats if all its cells are, written
    without leading zeros; else of texts.
    """

    def __init__(
        self,
        *,
        path: str | list[str],
        split: str = ALL,
        paths: list[str] | None = None,
        root: str | None = None,
        delimiter: str = ",",
    ) -> None:
        if len(delimiter) != 1:
            raise ValueError(f"delimiter: found {delimiter!r}, expected one character")
        self.delimiter = delimiter
        super().__init__(path=path, split=split, paths=paths, root=root)

    def read_files(self) -> Sequence[FileRows]:
        """Read the files; a column is of the same kind in all of them."""
        tables = [CsvRows(file, self.delimiter) for file in self.files]
        kinds: dict[str, int] = {}
        for table in tables:
            for name, kind in table.kinds.items():
                kinds[name] = max(kind, kinds.get(name, INTEGER))
        for name in {name for table in tables for name in table.large}:
            kinds[name] = TEXT if kinds[name] == FLOAT else kinds[name]
        for table in tables:
            table.kinds = {name: kinds[name] for name in table.columns}
            table.settings = (self.delimiter, tuple(table.kinds.items()))
        return tables


class CsvRows(FileRows):
    """The rows of one file, as texts in memory. kinds: of each column, what its cells are."""

    def __init__(self, file: Path, delimiter: str) -> None:
        self.faults: dict[int, str] = {}
        self.rows: list[tuple[str, ...]] = []
        lines = _read(file, delimiter)
        line, header = next(lines, (1, []))
        self.columns = _header(file, line, header, delimiter)
        kinds, numbers = [INTEGER] * len(header), [False] * len(header)
        large = [False] * len(header)  # whether a column has an integer that no float holds
        counts, first_texts = [[0, 0] for _ in header], [""] * len(header)
        for line, cells in lines:
            if len(cells) != len(header):
                self.faults[len(self.rows)] = (
                    f"line {line} has {len(cells)} cells ({_quoted(cells)}), the header has "
                    f"{len(header)}; put a cell that holds a {delimiter!r} in quotes"
                )
                self.rows.append(())
                continue
            self.rows.append(tuple(cells))
            for place, cell in enumerate(cells):
                kind = _kind(cell) if cell else INTEGER
                if kind == TEXT and kinds[place] != TEXT:
                    first_texts[place] = f"line {line} holds {short_repr(cell)}"
                if cell:
                    kinds[place] = max(kinds[place], kind)
                    large[place] |= kind == INTEGER and len(cell) > _LARGE and not _fits(cell)
                    numbers[place] = numbers[place] or cell.lower() not in _NOT_FINITE
                    counts[place][kind == TEXT] += 1
        if self.rows and len(self.faults) == len(self.rows):
            raise ValueError(f"{file}: {self.faults[0]}")
        # A column of nothing but `nan` is one of texts; an empty one does not decide the types of
        # other files.
        decided = zip(self.columns, kinds, numbers, strict=True)
        self.kinds = {n: TEXT if kind == FLOAT and not num else kind for n, kind, num in decided}
        self.large = {n for n, is_large in zip(self.columns, large, strict=True) if is_large}
        self.notes = [
            f"{file.name}: the column {name!r} is one of texts, since {first} ({count[0]} of "
            f"{sum(count)} cells are numbers)"
            for name, first, count in zip(self.columns, first_texts, counts, strict=True)
            if count[0] > count[1] > 0
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> dict[str, Any]:
        cells = zip(self.columns, self.rows[index], strict=True)
        return {name: self._value(name, cell) for name, cell in cells}

    def cell(self, index: int, column: str) -> Any:
        if column not in self.columns:
            return None
        return self._value(column, self.rows[index][self.columns.index(column)])

    def _value(self, column: str, cell: str) -> Any:
        return _PARSE[self.kinds[column]](cell) if cell else None


def _kind(cell: str) -> int:
    if _INTEGER.fullmatch(cell):
        return INTEGER
    if _FLOAT.fullmatch(cell):
        return FLOAT if math.isfinite(float(cell)) else TEXT
    return FLOAT if cell.lower() in _NOT_FINITE else TEXT


def _fits(cell: str) -> bool:
    """Return whether a float holds an integer."""
    number = int(cell)
    return abs(number) < 2**1023 and int(float(number)) == number


def _read(file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the cells of each row; blank lines are none."""
    data = read_bytes(file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file}, line {line}: is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from error
    if "\0" in text.partition("\n")[0]:
        raise ValueError(f"{file}, line 1: holds NUL signs (is it UTF-16?); save it as UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    with _any_size():
        try:
            for cells in reader:
                if cells:
                    yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            wrong = str(error)
            if "unexpected end" in wrong:
                wrong = "a quote is opened and never closed"
            raise ValueError(f"{file}, line {line}: {wrong}") from error


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Cells may be of any length."""
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _header(file: Path, line: int, names: list[str], delimiter: str) -> tuple[str, ...]:
    """Return the columns' names; one without a name is called as pandas calls it."""
    other = next((sign for sign in ";\t," if len(names) == 1 and sign in names[0]), None)
    if other is not None:
        raise ValueError(
            f"{file}, line {line}: is one column, {short_repr(names[0])}, between the signs "
            f"{delimiter!r}; set delimiter: {json.dumps(other)}"
        )
    columns = [name or f"Unnamed: {index}" for index, name in enumerate(names)]
    duplicate = repeated(columns)
    if duplicate is not None:
        raise ValueError(
            f"{file}, line {line}: the column {duplicate!r} appears twice in the header"
        )
    return tuple(columns)


def _quoted(cells: Sequence[str]) -> str:
    return short_repr(", ".join(map(repr, cells)))
