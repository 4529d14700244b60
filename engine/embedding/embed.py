"""Any data set through one stream of a model into an index, in bounded memory.

Rows that are in the index already are passed over, so that a killed run continues where it was,
and a folder that has grown gets only its new files embedded. A row counts as there when its
key and its cell (a file's path, size and time) are those it was embedded with.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...modalities.base import StreamingSource
from ..data import SkippedRows
from ..index import (
    Added,
    Entry,
    Index,
    IndexMetadata,
    open_index,
    same_key_message,
)
from ..index import text as text_of
from ..model import Model
from ..utils import RunLogger, RuntimeFailure, from_main, gather, init_accelerator
from .data_spec import DataSpec
from .embedder import Embedder
from .maker import open_for
from .pending import EmbeddingBatch, PendingRows, pending_batches
from .stale_rows import stale_rows

COMMIT_ROWS = 2048
COMMIT_SECONDS = 30.0
"""What a kill loses at most: whichever comes first."""

COMMIT_SHARE = 64
"""A commit into a large index holds at least one in so many of its rows, since each costs a time
that grows with the number of those before."""


@dataclass
class EmbedReport:
    """added: rows written. there: rows that needed nothing. skipped: rows that could not be
    embedded, by why. left: columns that an index does not take. stale: rows of the index that are
    out of date (see `stale_rows`), and `pruned` if they were taken out."""

    added: Added = field(default_factory=Added)
    already_present: int = 0
    skipped: SkippedRows = field(default_factory=SkippedRows)
    dropped_columns: set[str] = field(default_factory=set)
    stale: int = 0
    pruned: bool = False
    seconds: float = 0.0

    def summary(self) -> str:
        rows = self.added.new + self.added.replaced
        replaced = f" ({self.added.replaced} in place of older ones)" if self.added.replaced else ""
        speed = f", {rows / self.seconds:.1f}/s" if self.seconds > 0 else ""
        present = f"; {self.already_present} were there already" if self.already_present else ""
        skipped = f"; {self.skipped.summary()}" if len(self.skipped) else ""
        embedded = f"{rows} rows embedded{replaced} in {self.seconds:.1f} s{speed}"
        return f"{embedded}{present}{skipped}{self._stale}"

    @property
    def _stale(self) -> str:
        if not self.stale:
            return ""
        rows = "1 row that is" if self.stale == 1 else f"{self.stale} rows that are"
        if self.pruned:
            return f"; took out {rows} gone or changed"
        return f"; it holds {rows} gone or changed: take them out with --prune"


class Writer:
    """Collects rows and commits them to an index, every so many or so many seconds.

    written: the identities of the rows. Raise RuntimeFailure where two rows have one key.
    """

    def __init__(self, index: Index, rows: int = COMMIT_ROWS) -> None:
        self.index, self.rows = index, rows
        self.added, self.written = Added(), list[bytes]()
        self._places: dict[int, int] = {}
        self._waiting: list[Entry] = []
        self._since = time.monotonic()

    def put(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            other = self._places.setdefault(hash(text_of(entry.key)), entry.row)
            if other != entry.row:
                raise RuntimeFailure(same_key_message(other, entry.row, entry.key))
            self._waiting.append(entry)
        late = time.monotonic() - self._since > COMMIT_SECONDS
        if late or len(self._waiting) >= self.rows + self.index.count() // COMMIT_SHARE:
            self.commit()

    def commit(self) -> None:
        self.added += self.index.add(self._waiting)
        self.written += [entry.identity for entry in self._waiting]
        self._waiting, self._since = [], time.monotonic()


def with_vectors(prepared: EmbeddingBatch, embedder: Embedder) -> list[Entry]:
    """Return the rows of a batch with their vectors; one that is no number becomes a failure."""
    if prepared.batch is None or not prepared.entries:
        return []
    vectors = embedder.vectors(prepared.batch)
    entries = []
    for entry, vector in zip(prepared.entries, vectors, strict=True):
        values = vector[1] if isinstance(vector, tuple) else vector  # sparse: indices, values
        if np.isfinite(values).all():
            entries.append(dataclasses.replace(entry, vector=vector))
        else:
            prepared.failed.append((entry.key, "its embedding holds NaN or infinity"))
    return entries


def embed(
    model: Model,
    maker: IndexMetadata,
    data: DataSpec,
    out: str,
    *,
    batch_size: int = 64,
    workers: int = 0,
    commit_rows: int = COMMIT_ROWS,
    prune: bool = False,
    log: RunLogger | None = None,
    device: str | torch.device | None = None,
) -> EmbedReport:
    """Embed the rows that the index does not hold yet. Of several processes (`torchrun`) each
    embeds its share of the rows, and the main one returns the report of all.

    maker: see `index_metadata`. prune: take rows out that are out of date. device: see `pick`.

    Raise ConfigError for a stream or an index that does not fit, RuntimeFailure where no row could
    be embedded.
    """
    start = time.monotonic()
    accelerator = init_accelerator(device)
    if log is not None and not accelerator.is_main_process:
        log = None
    share = accelerator.process_index, accelerator.num_processes
    chosen = accelerator.device if share[1] > 1 else device
    embedder = Embedder(model, maker.stream, chosen, form=maker.form, dim=maker.dim)
    dataset = embedder.dataset(data.source)
    pending = PendingRows(data, maker.stream, dataset, embedder.collator, share)
    pending.check_keys()
    opened: list[Index] = []

    def stored_identities() -> np.ndarray:
        from_main(accelerator, lambda: open_for(out, maker).count())  # made once
        opened.append(open_for(out, maker))
        return opened[0].identities()

    batches = pending_batches(pending, stored_identities, batch_size, workers)
    writer, totals = Writer(opened[0], commit_rows), EmbedReport()
    streaming = isinstance(data.source, StreamingSource)
    rows = None if streaming else len(range(share[0], len(data.source), share[1]))
    count = 0
    try:
        for prepared in batches:
            count += len(prepared.entries) + len(prepared.failed)
            writer.put(with_vectors(prepared, embedder))
            report(prepared, totals, log, (maker.stream, count, rows))
    finally:
        writer.commit()  # after an error too: the rows that are here are whole
    totals.added, totals.already_present = writer.added, 0 if rows is None else rows - count
    report(EmbeddingBatch(), totals, log, (maker.stream, rows or 0, rows))
    current = None if streaming else np.array([*pending.identities, *writer.written], "S16")
    shares = gather(accelerator, (vars(totals) | {"skipped": totals.skipped.reasons}, current))
    if accelerator.is_main_process:
        totals = _merged([each for each, _ in shares])
        identities = (
            None if streaming else np.sort(np.concatenate([values for _, values in shares]))
        )
        finish(open_index(out), totals, data.text, identities, prune)
    totals.seconds = time.monotonic() - start
    return totals


def _merged(reports: Sequence[Mapping[str, Any]]) -> EmbedReport:
    """Return the reports of several processes, their fields, as one."""
    merged = EmbedReport()
    for each in reports:
        merged.added += each["added"]
        merged.already_present += each["already_present"]
        merged.dropped_columns |= each["dropped_columns"]
        for key, reason in each["skipped"].items():
            merged.skipped.add(key, reason)
    return merged


def report(
    prepared: EmbeddingBatch,
    totals: EmbedReport,
    log: RunLogger | None,
    progress: tuple[str, int, int | None] = ("", 0, None),
) -> None:
    """Count the failures of a batch, and log the new ones. progress: name, rows done,
    and rows in all where that is known."""
    label, done, rows = progress
    if log is not None and rows is not None:
        log.progress(label, done, rows)
    for key, reason in prepared.failed:
        if totals.skipped.add(key, reason) and log is not None:
            log.info(f"{key}: {reason}")
    for name in sorted(prepared.dropped_columns - totals.dropped_columns):
        if log is not None:
            log.info(
                f"the column {name!r} is left out: it is no text or number, or the index's own"
            )
    totals.dropped_columns |= prepared.dropped_columns


def finish(
    index: Index, totals: EmbedReport, data: str, identities: np.ndarray | None, prune: bool
) -> None:
    """Count the rows that are out of date and remove them on request; leave a table of few
    files. Raise RuntimeFailure where nothing could be embedded.

    data, identities: see `stale_rows`.
    """
    stale = stale_rows(index, data, identities)
    totals.stale, totals.pruned = len(stale), prune and bool(stale)
    if totals.pruned:
        index.remove(stale)
    if totals.added.new + totals.added.replaced or totals.pruned:
        index.optimize()
    if len(totals.skipped) and not index.count():
        key, reason = next(iter(totals.skipped.reasons.items()))
        raise RuntimeFailure(
            f"no row could be embedded; {len(totals.skipped)} failed, the first: {key}: {reason}"
        )
