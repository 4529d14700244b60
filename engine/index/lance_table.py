"""The LanceDB table of an index: found, opened, made, read, and the rows that it surely holds.

A merge joins the whole table with its rows: filling an index by merges alone takes a time that
grows with the square of its rows. New rows are therefore appended and only others merged.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..recipe import import_optional
from ..utils import ConfigError, sync_folder
from .arrow import text
from .base import (
    DATA,
    FILES,
    IDENTITY,
    KEY,
    ROW,
    SPLIT,
    VECTOR,
    Entry,
    IndexMetadata,
)
from .errors import (
    check_condition,
    condition_message,
    index_errors,
    is_damage,
    is_library_error,
)
from .forms import form_of

TABLE = "embeddings"
FOLDER = f"{TABLE}.lance"
METADATA = b"sensorium"
ROW_ID = "_rowid"
ROWS = 8192
"""Rows that are read at a time."""

Read = Callable[[int], Iterator[Any]]
"""Return batches with the columns of a row's name, and its id, of rows from an id on."""


def is_there(uri: str) -> bool:
    """Return whether a folder or address holds a table."""
    if "://" in uri:
        return TABLE in connect(uri).list_tables().tables
    # A folder without a version is the rest of a table that was never created.
    return any((Path(uri) / FOLDER / "_versions").glob("*.manifest"))


def make_table(uri: str, schema: Any) -> None:
    """Make a table: on a disk beside its place, and moved into it, so that it is whole or not
    there."""
    if "://" in uri:
        connect(uri).create_table(TABLE, schema=schema, exist_ok=True)
        return
    folder = Path(uri)
    for leftover in folder.glob(
        f".{TABLE}-*.part"
    ):  # of a process that was killed: we have the lock
        shutil.rmtree(leftover)
    temporary = folder / f".{TABLE}-{os.getpid()}.part"
    try:
        connect(str(temporary)).create_table(TABLE, schema=schema)
        if (folder / FOLDER).exists():
            shutil.rmtree(folder / FOLDER)
        (temporary / FOLDER).rename(folder / FOLDER)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def connect(uri: str) -> Any:
    lancedb = import_optional("lancedb")
    with index_errors(uri, "cannot be opened"):
        return lancedb.connect(uri)


def schema_of(metadata: IndexMetadata) -> Any:
    """Return the Arrow schema of an empty index."""
    return pa.schema(
        [
            pa.field(KEY, pa.string(), nullable=False),
            pa.field(SPLIT, pa.string()),
            pa.field(DATA, pa.string(), nullable=False),
            pa.field(ROW, pa.int64()),
            pa.field(IDENTITY, pa.binary(16)),
            pa.field(FILES, pa.list_(pa.string())),
            pa.field(VECTOR, form_of(metadata.form, metadata.storage, metadata.dim).type()),
        ],
        metadata={METADATA: metadata.to_json().encode()},
    )


def read_batches(table: Any, uri: str, columns: Sequence[str], where: str | None) -> Iterator[Any]:
    """Yield the rows that a condition holds for, `ROWS` at a time. Raise ConfigError for a
    condition that cannot be read, RuntimeFailure for a damaged index."""
    query = table.search().select(list(columns)).with_row_id(True)
    if where is not None:
        query = query.where(check_condition(where))
    try:
        yield from query.to_batches(ROWS)
    except Exception as error:
        if where is None or is_damage(error) or not is_library_error(error):
            with index_errors(uri):
                raise
        raise ConfigError(condition_message(error, table.schema.names)) from error


class KnownKeys:
    """Hashes of the names of all rows of a table up to a version, and perhaps of rows that were
    removed since: a name that is not among them is new."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()
        self._next_id, self._version = 0, -1

    def update(self, version: int, read: Read) -> None:
        """Read the rows that other writers have added since; ids only ever grow."""
        if version == self._version:
            return
        for batch in read(self._next_id):
            keys = zip(batch[DATA].to_pylist(), batch[KEY].to_pylist(), strict=True)
            self._hashes.update(hash(name) for name in keys)
            self._next_id = max(self._next_id, int(batch["_rowid"].to_numpy().max()) + 1)
        self._version = version

    def all_new(self, entries: Sequence[Entry]) -> bool:
        """Return whether surely none of the rows is in the table."""
        return self._hashes.isdisjoint(_hash(entry) for entry in entries)

    def written(self, version: int, entries: Sequence[Entry]) -> None:
        """Record rows that were written just now, which made a version of the table."""
        self._hashes.update(_hash(entry) for entry in entries)
        self._version = version


def _hash(entry: Entry) -> int:
    return hash((entry.data, text(entry.key)))
