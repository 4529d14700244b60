"""Rows on their way to be embedded: which are left to do, read and collated in the workers.

A row that cannot be read travels as a failure, and is reported in the main process.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..modalities.base import ReadError, Sample, StreamingSource
from ..modalities.groups import EncoderInputs
from ._columns import columns_of
from ._given import Given
from .data import StreamReader
from .index import Entry

Done = Callable[[], np.ndarray]
"""Gives the sorted identities of the rows that need nothing."""

FAILURES = (ReadError, ValueError, KeyError, OSError)


@dataclass
class Prepared:
    """A batch. entries: its readable rows, still without vectors. inputs: their samples, collated.
    failed: (key, reason). left: names of columns that an index does not take."""

    entries: list[Entry] = field(default_factory=list)
    inputs: EncoderInputs = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    left: set[str] = field(default_factory=set)


@dataclass
class Cells:
    """The cells of one stream in a data set, and how they are read."""

    given: Given
    stream: str
    reader: StreamReader
    collate: Callable[[Sequence[Sample]], EncoderInputs]

    def identity(self, place: int) -> bytes:
        """16 bytes that change when the row's key or cell does."""
        source = self.given.source
        parts = (self.given.text, source.key(place), source.identity(place, self.stream))
        text = "\0".join(parts).encode(errors="surrogateescape")
        return hashlib.blake2b(text, digest_size=16).digest()

    def pending(self, done: np.ndarray) -> Iterator[int]:
        """Places of the rows that are not among `done`, sorted identities; of a stream none."""
        for place in range(len(self.given.source)):
            try:
                known = contains(done, self.identity(place))
            except FAILURES:  # it is reported when it is read
                known = False
            if not known:
                yield place

    def prepare(self, places: Sequence[int]) -> Prepared:
        """Read and collate rows by their places."""
        return self._prepare((place, None) for place in places)

    def stream_batches(self, done: np.ndarray, size: int) -> Iterator[Prepared]:
        """Every row of a streaming source that is not among `done`, in batches."""
        source = self.given.source
        assert isinstance(source, StreamingSource)
        rows = (r for r in enumerate(source) if not contains(done, self.identity(r[0])))
        while batch := list(itertools.islice(rows, size)):
            yield self._prepare(batch)

    def _prepare(self, rows: Iterable[tuple[int, Any]]) -> Prepared:
        made, samples = Prepared(), list[Sample]()
        for place, row in rows:
            try:
                entry, sample = self._read(place, row, made.left)
            except ReadError as error:
                made.failed.append((self.given.source.key(place), str(error)))
            except FAILURES as error:
                told = " ".join(f"{type(error).__name__}: {error}".split())
                made.failed.append((self.given.source.key(place), told))
            else:
                made.entries.append(entry)
                samples.append(sample)
        if samples:
            made.inputs = self.collate(samples)
        return made

    def _read(self, place: int, row: Any, left: set[str]) -> tuple[Entry, Sample]:
        source = self.given.source
        identity = self.identity(place)  # before the file is read: a later change is a new row
        row = source[place] if row is None else row
        columns, others = columns_of(row)
        left.update(name for name in others if name != self.stream)
        split = self.given.split or str(row.get("split") or "")
        entry = Entry(
            source.key(place), split, self.given.text, place, identity, np.empty(0), columns
        )
        return entry, self.reader.sample(row[self.stream], "")


def contains(done: np.ndarray, identity: bytes) -> bool:
    """True where a sorted array of 16 bytes each holds these."""
    wanted = np.frombuffer(identity, "S16")[0]
    at = int(np.searchsorted(done, wanted))
    return at < len(done) and done[at] == wanted


class _Rows(Dataset[Prepared]):
    """A whole batch by the places of its rows."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    def __getitem__(self, places: Any) -> Prepared:
        return self.cells.prepare(places)


class _Stream(IterableDataset[Prepared]):
    def __init__(self, cells: Cells, done: np.ndarray, size: int) -> None:
        self.cells, self.done, self.size = cells, done, size

    def __iter__(self) -> Iterator[Prepared]:
        return self.cells.stream_batches(self.done, self.size)


class _Pending:
    """The places of rows that are left to do as a sampler, `size` at a time; nothing is listed
    beforehand, and `done` is asked when the first is."""

    def __init__(self, cells: Cells, done: Done, size: int) -> None:
        self.cells, self.done, self.size = cells, done, size

    def __iter__(self) -> Iterator[list[int]]:
        places = self.cells.pending(self.done())
        while batch := list(itertools.islice(places, self.size)):
            yield batch


def loader(cells: Cells, done: Done, batch_size: int, workers: int) -> Iterator[Prepared]:
    """The batches of all rows that are left to do, made by `workers` processes (a streaming
    source by one at most, which reads it once).

    done: called once, before this returns, and for rows by index after the workers were forked:
    whatever opens a table starts threads, which a fork does not survive.
    """
    options: dict[str, Any] = {"batch_size": None}
    options["generator"] = torch.Generator()  # the loader's own: torch's global one is not touched
    if isinstance(cells.given.source, StreamingSource):
        stream = _Stream(cells, done(), batch_size)
        return iter(DataLoader(stream, num_workers=min(workers, 1), **options))
    if not workers:  # no process to be forked, and no batch is asked for ahead
        known = done()
        done = lambda: known  # noqa: E731
    places = _Pending(cells, done, batch_size)
    return iter(DataLoader(_Rows(cells), sampler=places, num_workers=workers, **options))
