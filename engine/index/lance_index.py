"""An index as a LanceDB table: embedded, on a disk or object storage, with atomic commits.

The table is authoritative; the structures of a faster search are built from one version of it,
which an opened index stays at. A commit is a version: killed in the middle, it never was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..utils import ConfigError
from .arrow import arrow_table, check_unique, new_fields
from .base import (
    DATA,
    IDENTITY,
    KEY,
    VECTOR,
    Added,
    Entry,
    Hit,
    IndexMetadata,
    Kind,
    Queries,
    SearchOptions,
    check_kind,
    check_query,
    missing_index,
)
from .errors import check_condition, index_errors, is_conflict
from .exact import Block, exact_search, joined
from .faiss_index import FaissIndex, open_or_build_faiss
from .forms import form_of
from .lance_pq import PQ_ROWS, build_pq, has_pq, pq_candidates
from .lance_table import (
    METADATA,
    ROW_ID,
    TABLE,
    KnownKeys,
    connect,
    is_there,
    make_table,
    read_batches,
    schema_of,
)
from .lock import write_lock

KEPT_BYTES = 2**30
"""Vectors up to this size stay in memory between searches; a larger table is read each time."""

DEFAULTS = SearchOptions()
TRIES = 5
REMOVED_AT_ONCE = 500


class LanceIndex:
    """An `Index` in a folder, or at an address such as `s3://bucket/index`."""

    def __init__(self, uri: str, table: Any) -> None:
        self.uri, self._table = uri, table
        self._metadata = IndexMetadata.from_json(
            (table.schema.metadata or {}).get(METADATA, b"{}").decode(), uri
        )
        metadata = self._metadata
        self._form = form_of(metadata.form, metadata.storage, metadata.dim)
        self._known = KnownKeys()
        self._invalidate()

    @property
    def metadata(self) -> IndexMetadata:
        return self._metadata

    @classmethod
    def exists(cls, uri: str) -> bool:
        return is_there(uri)

    @classmethod
    def open(cls, uri: str) -> LanceIndex:
        if not cls.exists(uri):
            raise missing_index(uri)
        with index_errors(uri, "cannot be opened"):
            return cls(uri, connect(uri).open_table(TABLE))

    @classmethod
    def create(cls, uri: str, metadata: IndexMetadata) -> LanceIndex:
        """Make an empty index, or open the one that another process made meanwhile."""
        with write_lock(uri), index_errors(uri, "cannot be made"):
            if not cls.exists(uri):
                make_table(uri, schema_of(metadata))
        return cls.open(uri)

    def add(self, entries: Sequence[Entry]) -> Added:
        if not entries:
            return Added()
        check_unique(entries)
        with write_lock(self.uri), index_errors(self.uri, "cannot be written"):
            self._table.checkout_latest()
            self._widen(entries)
            rows = arrow_table(entries, self._table.schema, self._form)
            added = self._write(rows, entries)
            self._table.checkout_latest()
            self._known.written(self._table.version, entries)
        self._invalidate()
        return added

    def _write(self, rows: Any, entries: Sequence[Entry]) -> Added:
        """Append rows if all are new, which only a writer that holds the lock knows; else merge
        them."""
        if "://" not in self.uri:
            self._known.update(self._table.version, self._names)
            if self._known.all_new(entries):
                self._table.add(rows)
                return Added(len(entries))
        merge = self._table.merge_insert([DATA, KEY]).when_matched_update_all()
        merged = merge.when_not_matched_insert_all().execute(rows)
        return Added(merged.num_inserted_rows, merged.num_updated_rows)

    def _names(self, first: int) -> Iterator[Any]:
        return self._batches([DATA, KEY], f"{ROW_ID} >= {first}" if first else None)

    def remove(self, identities: Sequence[bytes]) -> int:
        with write_lock(self.uri), index_errors(self.uri, "cannot be written"):
            self._table.checkout_latest()
            before = self._table.count_rows()
            for start in range(0, len(identities), REMOVED_AT_ONCE):
                batch = identities[start : start + REMOVED_AT_ONCE]
                values = ", ".join(f"X'{identity.hex()}'" for identity in batch)
                self._table.delete(f"{IDENTITY} IN ({values})")
                self._table.checkout_latest()
            self._invalidate()
            return int(before - self._table.count_rows())

    def _invalidate(self) -> None:
        """Drop what was made from an earlier version."""
        self._rows_held: int | None = None
        self._vectors_in_memory: list[Block] | None = None
        self._too_large = False
        self._sides: dict[str, FaissIndex] = {}

    def _widen(self, entries: Sequence[Entry]) -> None:
        """Add columns that the table lacks, as another writer may do meanwhile."""
        for retries in reversed(range(TRIES)):
            missing = new_fields(entries, self._table.schema)
            if not missing:
                return
            try:
                self._table.add_columns(missing)
            except (ValueError, RuntimeError, OSError):
                if not retries:
                    raise
            self._table.checkout_latest()

    def optimize(self) -> None:
        """Join the small files of many commits, unless another writer commits meanwhile."""
        with write_lock(self.uri), index_errors(self.uri, "cannot be compacted"):
            self._table.checkout_latest()
            try:
                self._table.optimize()
            except (ValueError, RuntimeError, OSError) as error:
                if not is_conflict(error):
                    raise
            self._table.checkout_latest()
        self._invalidate()

    def count(self, where: str | None = None) -> int:
        if where is None:
            if self._rows_held is None:
                with index_errors(self.uri):
                    self._rows_held = int(self._table.count_rows())
            return self._rows_held
        # The planner that reads rows names the columns; the one that counts is less clear.
        next(self._batches([KEY], where), None)
        with index_errors(self.uri):
            return int(self._table.count_rows(check_condition(where)))

    def where(self, condition: str | None, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for batch in self._batches(columns, condition):
            yield from batch.drop_columns([ROW_ID]).to_pylist()

    def identities(self) -> np.ndarray:
        blocks = [np.empty(0, "S16")]
        for batch in self._batches([IDENTITY], None):
            data = batch[IDENTITY].buffers()[1]
            start = batch[IDENTITY].offset
            blocks.append(np.frombuffer(data, "S16")[start : start + batch.num_rows].copy())
        return np.sort(np.concatenate(blocks))

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        where: str | None = None,
        kind: Kind = "exact",
        options: SearchOptions = DEFAULTS,
    ) -> list[list[Hit]]:
        scores, ids = self.nearest(queries, k, where=where, kind=kind, options=options)
        rows = self._rows(np.unique(ids[ids >= 0]))
        return [
            [
                Hit(float(score), rows[int(i)])
                for score, i in zip(scores[q], ids[q], strict=True)
                if i >= 0
            ]
            for q in range(len(ids))
        ]

    def nearest(
        self,
        queries: Queries,
        k: int,
        *,
        where: str | None = None,
        kind: Kind = "exact",
        options: SearchOptions = DEFAULTS,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores `[Q, k]`, best first, and row ids `[Q, k]` (-1 where there are no more rows).

        Under a condition the search is exact, for any kind: its rows are read anyway. So is that
        of rows too few for an index of the kind.
        """
        check_kind(kind, options, self.metadata, self.uri)
        vectors = check_query(queries, k, self.metadata, self.uri)
        rows = self.count(where)
        if not rows:
            return np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64)
        if where is not None:
            return exact_search(vectors, self._blocks(where), min(k, rows))
        count = min(k, rows)
        if kind == "exact" or (kind == "ivf_pq" and rows < PQ_ROWS):
            return exact_search(vectors, self._vectors(rows), count)
        scores, ids = self._approximate(vectors, count, kind, options)
        if ids[:, -1].min() < 0:  # a graph or lists that do not reach so many rows
            short = ids[:, -1] < 0
            scores[short], ids[short] = exact_search(vectors[short], self._vectors(rows), count)
        return scores, ids

    def _approximate(
        self, queries: np.ndarray, k: int, kind: Kind, options: SearchOptions
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search by the table's own index (`ivf_pq`), or by one of faiss beside it."""
        if kind == "ivf_pq":
            self._build_pq()
            with index_errors(self.uri):
                return pq_candidates(self._table, self._form, queries, k, options)
        if kind not in self._sides:
            self._sides[kind] = open_or_build_faiss(
                self._side_folder(),
                kind,
                self._table.version,
                self.count(),
                self.metadata.dim,
                self._blocks,
            )
        return self._sides[kind].search(queries, k, options.nprobes)

    def _build_pq(self) -> None:
        """Build the table's index of quantized vectors, unless it has one; it becomes a version."""
        if has_pq(self._table):
            return
        with write_lock(self.uri), index_errors(self.uri, "cannot be indexed"):
            self._table.checkout_latest()
            if not has_pq(self._table):
                build_pq(self._table, self._table.count_rows(), self.metadata.dim)
            self._table.checkout_latest()
        self._invalidate()

    def _vectors(self, rows: int) -> Iterable[Block]:
        """Return the table's vectors: from memory if they fit, else as a stream."""
        if self._vectors_in_memory is None and not self._too_large:
            self._vectors_in_memory = joined(self._blocks(), rows, KEPT_BYTES)
            self._too_large = self._vectors_in_memory is None
        return self._vectors_in_memory or self._blocks()

    def _blocks(self, where: str | None = None) -> Iterator[Block]:
        for batch in self._batches([VECTOR], where):
            yield batch[ROW_ID].to_numpy().astype(np.int64), self._form.rows(batch[VECTOR])

    def _rows(self, ids: np.ndarray) -> dict[int, dict[str, Any]]:
        """Return the columns of rows except their vectors, by row id."""
        if not len(ids):
            return {}
        columns = [name for name in self._table.schema.names if name != VECTOR]
        with index_errors(self.uri):
            table = self._table.take_row_ids(ids.tolist()).select(columns).with_row_id().to_arrow()
        return {row.pop(ROW_ID): row for row in table.to_pylist()}

    def _batches(self, columns: Sequence[str], where: str | None) -> Iterator[Any]:
        return read_batches(self._table, self.uri, columns, where)

    def _side_folder(self) -> Path:
        if "://" in self.uri:
            raise ConfigError(
                f"{self.uri}: hnsw and ivf are kept beside an index on a local disk; "
                "search it with --search ivf_pq, which the table itself holds, or exactly"
            )
        return Path(self.uri) / "side"
