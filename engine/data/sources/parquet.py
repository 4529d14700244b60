"""Apache Parquet as a source: converted once to Arrow by 🤗 datasets, then read by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from .arrow import Decoder, arrow_row
from .files import FileRows, Files
from .hf_datasets import FAILURES, load_files, root_cause

_EMPTY = ("corresponds to no data", "at least one example", "BatchSize must be greater than 0")
"""The message of 🤗 datasets for a file without rows."""


class Parquet(Files):
    """Apache Parquet, with or without 🤗 datasets' own types. Pictures and sounds are
    `{"path":, "bytes":}`, not decoded. A column is of one kind in all files."""

    def read_files(self) -> Sequence[FileRows]:
        tables = super().read_files()
        kinds: dict[str, tuple[str, Path]] = {}
        for file, table in zip(self.files, tables, strict=True):
            for name, kind in getattr(table, "kinds", {}).items():
                before, first = kinds.setdefault(name, (kind, file))
                if kind != before:
                    raise ValueError(
                        f"{file}: its column {name!r} holds {kind}, that of {first.name} holds "
                        f"{before}; write both alike, or name it differently"
                    )
        return tables

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
        self.kinds = _kinds(table)
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


def _kinds(table: Any) -> Mapping[str, str]:
    """Return whether the columns of a table hold numbers, texts or lists, by name; others are left
    out."""
    kinds = {}
    for field in table.features.arrow_schema if table.features else ():
        for kind, tests in _KINDS.items():
            if any(test(field.type) for test in tests):
                kinds[field.name] = kind
    return kinds


_KINDS = {
    "numbers": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    "texts": (pa.types.is_string, pa.types.is_large_string),
    "true or false": (pa.types.is_boolean,),
    "lists": (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
    "dates": (pa.types.is_date,),
    "times": (pa.types.is_timestamp,),
    "keys and values": (pa.types.is_struct,),
}
