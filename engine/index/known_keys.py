"""Which rows a table holds, so that new ones are appended and only others merged.

A merge joins the whole table with its rows: filling an index by merges alone takes a time that
grows with the square of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .arrow import text
from .base import DATA, KEY, Entry

Read = Callable[[int], Iterator[Any]]
"""Return batches with the columns of a row's name, and its id, of rows from an id on."""


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
