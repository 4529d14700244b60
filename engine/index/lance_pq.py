"""Product quantization in lists, kept on disk by the Lance table itself: for tables that are larger
than memory, and on object storage.

A vector is a few codes of 8 bits, in the list of its nearest centre (Jegou et al., "Product
Quantization for Nearest Neighbor Search", 2011). A search reads the lists nearest to the query, and
compares the best by codes again by their own vectors. Rows that came after the index was built are
compared exactly, until `optimize` sorts them into the lists.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from .base import VECTOR, SearchOptions
from .exact import exact_search
from .forms import VectorForm
from .lance_table import ROW_ID

PQ_ROWS = 256
"""The fewest rows that 256 codes can be found from; a smaller table is searched exactly."""

CODE_DIM = 4
"""Coordinates that one code stands for."""

SAMPLES, ITERATIONS = 64, 10
"""Of the k-means: rows for each centre, and rounds."""

LISTS_SHARE, LEAST_LISTS, REFINE = 8, 20, 10
"""Defaults of a search: one in so many lists, at least so many; candidates for each of the k."""


def has_pq(table: Any) -> bool:
    """Return whether a table has an index of quantized vectors."""
    return any(index.columns == [VECTOR] for index in table.list_indices())


def build_pq(table: Any, rows: int, dim: int) -> None:
    """Build the index of a table's vectors: `sqrt(rows)` lists, a code for about four
    coordinates."""
    config = importlib.import_module("lancedb.index").IvfPq(
        distance_type="dot",
        num_partitions=_lists(rows),
        num_sub_vectors=next(n for n in range(max(1, dim // CODE_DIM), 0, -1) if dim % n == 0),
        max_iterations=ITERATIONS,
        sample_rate=SAMPLES,
    )
    table.create_index(VECTOR, config=config)


def _lists(rows: int) -> int:
    return max(1, round(rows**0.5))


def pq_candidates(
    table: Any, form: VectorForm, queries: np.ndarray, k: int, options: SearchOptions
) -> tuple[np.ndarray, np.ndarray]:
    """queries `[Q, D]` -> scores `[Q, k]`, as an exact search gives them, and row ids `[Q, k]`, -1
    where the lists held no more."""
    lists = _lists(table.count_rows())
    nprobes = min(options.nprobes or max(LEAST_LISTS, lists // LISTS_SHARE), lists)
    candidates = k * (options.refine or REFINE)
    scores, ids = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for row, query in enumerate(queries):
        search = table.search(query, vector_column_name=VECTOR).distance_type("dot")
        search = search.nprobes(nprobes).limit(candidates).with_row_id(True)
        nearest = search.select([VECTOR, "_distance"]).to_arrow().combine_chunks()
        row_ids = nearest[ROW_ID].to_numpy().astype(np.int64)
        vectors = nearest[VECTOR].combine_chunks()
        block = (row_ids, form.rows(vectors))
        scores[row : row + 1], ids[row : row + 1] = exact_search(query[None], [block], k)
    return scores, ids
