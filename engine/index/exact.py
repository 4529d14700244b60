"""Exact search: one pass of a blocked matrix product, the best kept as it goes.

Blocks grow, so that the bar which a score has to clear is high before the bulk of the rows
comes by, and hardly any of them has to be looked at. Memory is bounded by the block.

Legend: `Q` queries, `D` width, `B` rows of a block, `k` hits of a query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .forms import DenseRows, Rows

FIRST = 4096
GROWTH = 8
CELLS = 2**20
"""Scores of one product: 4 MB, which a core's cache takes."""

Block = tuple[np.ndarray, Rows]
"""ids `[B]` int64, and the vectors of the rows."""


class TopK:
    """The k best rows of those added, for each query; of equal scores the smaller id."""

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self.scores = np.full((queries, k), -np.inf, dtype=np.float32)
        self.ids = np.full((queries, k), -1, dtype=np.int64)
        self._owner = np.repeat(np.arange(queries), k)

    def update(self, ids: np.ndarray, scores: np.ndarray) -> None:
        """ids `[B]`, scores `[Q, B]`."""
        candidates = np.flatnonzero(scores >= self._bar(scores))
        rows, columns = np.divmod(candidates, scores.shape[1])
        all_scores = np.concatenate([self.scores.ravel(), scores[rows, columns]])
        all_ids = np.concatenate([self.ids.ravel(), ids[columns]])
        owner = np.concatenate([self._owner, rows])
        order = np.lexsort((all_ids, -all_scores, owner))
        first = np.searchsorted(owner[order], np.arange(len(scores)))
        best = order[first[:, None] + np.arange(self.k)]
        self.scores, self.ids = all_scores[best], all_ids[best]

    def _bar(self, scores: np.ndarray) -> np.ndarray:
        """Return `[Q, 1]`: the least score among the best."""
        bar = self.scores[:, -1:]
        rest = scores.shape[1] - self.k
        if rest > 0 and np.isneginf(bar).any():  # nothing to compare with yet: the block's own
            block_bar = np.partition(scores, rest, axis=1)[:, rest : rest + 1]
            return np.maximum(bar, block_bar)
        return bar


def exact_search(queries: Any, blocks: Iterable[Block], k: int) -> tuple[np.ndarray, np.ndarray]:
    """queries, Q of them as the rows' form compares them -> scores `[Q, k]`, best first, and ids
    `[Q, k]` (-1 where there are no more rows)."""
    best = TopK(len(queries), k)
    rows = 0
    for ids, vectors in blocks:
        for part in _parts(len(ids), rows, max(FIRST, CELLS // len(queries))):
            best.update(ids[part], vectors.part(part).scores(queries, k))
        rows += len(ids)
    return best.scores, best.ids


def _parts(rows: int, before: int, most: int) -> Iterator[slice]:
    start = 0
    while start < rows:
        size = min(most, max(FIRST, GROWTH * (before + start)))
        yield slice(start, start + size)
        start += size


def joined(blocks: Iterable[Block], rows: int) -> list[Block]:
    """Return blocks in memory; dense ones as one of all rows, whose product is the fastest."""
    ids, start = np.empty(rows, np.int64), 0
    vectors, storage, others = np.empty((0, 0)), "float32", list[Block]()
    for block_ids, block in blocks:
        if not isinstance(block, DenseRows):
            others.append((block_ids, block))
            continue
        if not start:
            vectors = np.empty((rows, block.vectors.shape[1]), block.vectors.dtype)
            storage = block.storage
        stop = start + len(block_ids)
        ids[start:stop], vectors[start:stop] = block_ids, block.vectors
        start = stop
    return [(ids, DenseRows(vectors, storage))] if start else others
