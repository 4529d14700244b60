"""Apache Parquet as a source: converted once to Arrow by 🤗 datasets, then read by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .arrow import Decoder, arrow_row
from .files import FileRows, Files
from .hf_datasets import FAILURES, load_files, root_cause

_EMPTY = ("corresponds to no data", "at least one example", "BatchSize must be greater than 0")
"""The message of 🤗 datasets for a file without rows."""


class Parquet(Files):
    """Apache Parquet, with or without 🤗 datasets' own types. Pictures and sounds are
    `{"path":, "bytes":}`, not decoded."""

    def read_file(self, file: Path) -> FileRows:
        try:
            return ArrowRows(load_files("parquet", [file], "train"))
        except FAILURES as error:
            reason = root_cause(error)
            if any(text in reason for text in _EMPTY):
                return NoRows()
            raise ValueError(f"{file}: {reason}") from error


class NoRows(FileRows):
    """A file that holds none."""

    columns = ()

    def __len__(self) -> int:
        return 0

    def row(self, index: int) -> dict[str, Any]:
        raise IndexError(index)


class ArrowRows(FileRows):
    """The rows of a table of 🤗 datasets, decoded where they leave Arrow."""

    def __init__(self, table: Any) -> None:
        self.columns = tuple(table.column_names)
        self._decoder = Decoder(table.features)
        self._rows = table.with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> dict[str, Any]:
        return self._decoder(arrow_row(self._rows, index))

    def cell(self, index: int, column: str) -> Any:
        if column not in self.columns:
            return None
        narrow = self._rows.with_format("arrow", columns=[column])
        return self._decoder(arrow_row(narrow, index))[column]
