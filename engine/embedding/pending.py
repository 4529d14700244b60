"""Rows on their way to be embedded: which are not in the index yet, in batches made by workers.

A row that cannot be read travels as a failure, and is reported in the main process.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...modalities.base import StreamingSource
from ...modalities.paths import cell_paths
from ...tasks.batch import Batch
from ..data import FAILURES, Collator, PreparedRow, StreamDataset, load_batches, stream_batches
from ..index import Entry, columns_of, same_key_message
from ..index import text as text_of
from ..utils import RuntimeFailure
from .data_spec import DataSpec
from .stale_rows import in_sorted

Done = Callable[[], np.ndarray]
"""Returns the sorted identities of the rows that need nothing."""


@dataclass
class EmbeddingBatch:
    """entries: the readable rows, still without vectors. batch: their samples. failed: (key,
    reason). dropped_columns: names of columns that an index does not take."""

    entries: list[Entry] = field(default_factory=list)
    batch: Batch | None = None
    failed: list[tuple[str, str]] = field(default_factory=list)
    dropped_columns: set[str] = field(default_factory=set)


@dataclass
class PendingRows:
    """The rows of a data set that are not in an index yet, prepared for one stream."""

    data: DataSpec
    stream: str
    dataset: StreamDataset
    collator: Collator
    share: tuple[int, int] = (0, 1)
    """The number of this process and how many there are: each takes every n-th row."""
    identities: list[bytes] = field(default_factory=list)
    """The identities of the rows that `pending` has passed."""

    def check_keys(self) -> None:
        """Raise RuntimeFailure where two rows have one key: an index would keep one of them."""
        source = self.data.source
        if isinstance(source, StreamingSource):
            return
        count = len(source)
        codes = np.fromiter((hash(text_of(source.key(i))) for i in range(count)), np.int64, count)
        order = np.argsort(codes, kind="stable")
        for position in np.flatnonzero(codes[order][1:] == codes[order][:-1]):
            first, second = int(order[position]), int(order[position + 1])
            if text_of(source.key(first)) == text_of(source.key(second)):
                raise RuntimeFailure(same_key_message(first, second, source.key(first)))

    def identity(self, index: int) -> bytes:
        """16 bytes that change when the row's key or cell does."""
        source, files = self.data.source, self.dataset.readers[self.stream].files
        parts = (self.data.text, source.key(index), source.cell_key(index, self.stream, files))
        text = "\0".join(parts).encode(errors="surrogateescape")
        return hashlib.blake2b(text, digest_size=16).digest()

    def pending(self, done: np.ndarray) -> Iterator[int]:
        """Places of the rows that are not among `done`, sorted identities; not of a stream."""
        first, step = self.share
        for index in range(first, len(self.data.source), step):
            try:
                identity = self.identity(index)
            except FAILURES:  # it is reported when it is read
                is_done = False
            else:
                self.identities.append(identity)
                is_done = in_sorted(done, identity)
            if not is_done:
                yield index

    def prepare(self, indices: Sequence[int]) -> EmbeddingBatch:
        """Read and collate rows by their places."""
        return self._prepare((index, None) for index in indices)

    def stream_batches(self, done: np.ndarray, size: int) -> Iterator[EmbeddingBatch]:
        """Yield every row of a streaming source that is not among `done`, in batches."""
        source = self.data.source
        assert isinstance(source, StreamingSource)
        share = itertools.islice(enumerate(source), self.share[0], None, self.share[1])
        rows = (r for r in share if not in_sorted(done, self.identity(r[0])))
        while batch := list(itertools.islice(rows, size)):
            yield self._prepare(batch)

    def _prepare(self, rows: Iterable[tuple[int, Any]]) -> EmbeddingBatch:
        result, prepared = EmbeddingBatch(), list[PreparedRow]()
        for index, row in rows:
            try:
                identity = self.identity(index)  # before the file is read: a later change is new
            except FAILURES as error:
                prepared.append(PreparedRow.failed(self.data.source.key(index), error))
                continue
            prepared.append(self.dataset.prepare(index, row=row))
            if prepared[-1].failure is None:
                result.entries.append(self._entry(index, identity, prepared[-1], result))
        result.batch = self.collator("", prepared)
        result.failed = result.batch.failed
        return result

    def _entry(
        self, index: int, identity: bytes, prepared: PreparedRow, result: EmbeddingBatch
    ) -> Entry:
        columns, dropped = columns_of(prepared.row)
        result.dropped_columns.update(name for name in dropped if name != self.stream)
        split = self.data.split or str(prepared.row.get("split") or "")
        cell = prepared.row[self.stream]
        paths = cell_paths(cell) if self.dataset.readers[self.stream].files(cell) else []
        text, files = self.data.text, tuple(map(str, paths))
        return Entry(prepared.key, split, text, index, identity, np.empty(0), columns, files)


class _PendingSampler:
    """The places of the pending rows, `size` at a time; nothing is listed beforehand, and `done`
    is called on first access."""

    def __init__(self, rows: PendingRows, done: Done, size: int) -> None:
        self.rows, self.done, self.size = rows, done, size

    def __iter__(self) -> Iterator[list[int]]:
        indices = self.rows.pending(self.done())
        while batch := list(itertools.islice(indices, self.size)):
            yield batch


def pending_batches(
    rows: PendingRows, done: Done, batch_size: int, workers: int
) -> Iterator[EmbeddingBatch]:
    """Return the batches of all pending rows, made by `workers` processes (those of a streaming
    source by one at most, which reads it once).

    done: called once, before this returns, and for rows by index after the workers were forked:
    opening a table starts threads, which a fork does not survive.
    """
    if isinstance(rows.data.source, StreamingSource):
        return stream_batches(functools.partial(rows.stream_batches, done(), batch_size), workers)
    if not workers:  # no process to be forked, and no batch is requested ahead
        identities = done()
        done = lambda: identities  # noqa: E731
    return load_batches(rows.prepare, _PendingSampler(rows, done, batch_size), workers)
