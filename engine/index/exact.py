"""Exact search: one pass of a blocked matrix product, the best kept as it goes.

Blocks grow, so that the bar which a score has to clear is high before the bulk of the rows
comes by, and hardly any of them has to be looked at. Memory is bounded by the block.

Legend: `Q` queries, `D` width, `B` rows of a block, `k` hits of a query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

FIRST = 4096
GROWTH = 8
CELLS = 2**20
"""Scores of one product: 4 MB, which a core's cache takes."""

Block = tuple[np.ndarray, np.ndarray]
"""ids `[B]` int64, vectors `[B, D]` float32."""


class TopK:
    """The k best of what was shown, for each query; of equal scores the smaller id."""

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self.scores = np.full((queries, k), -np.inf, dtype=np.float32)
        self.ids = np.full((queries, k), -1, dtype=np.int64)
        self._owner = np.repeat(np.arange(queries), k)

    def update(self, ids: np.ndarray, scores: np.ndarray) -> None:
        """ids `[B]`, scores `[Q, B]`."""
        places = np.flatnonzero(scores >= self._bar(scores))
        rows, columns = np.divmod(places, scores.shape[1])
        every = np.concatenate([self.scores.ravel(), scores.ravel()[places]])
        named = np.concatenate([self.ids.ravel(), ids[columns]])
        owner = np.concatenate([self._owner, rows])
        order = np.lexsort((named, -every, owner))
        first = np.searchsorted(owner[order], np.arange(len(scores)))
        kept = order[first[:, None] + np.arange(self.k)]
        self.scores, self.ids = every[kept], named[kept]

    def _bar(self, scores: np.ndarray) -> np.ndarray:
        """`[Q, 1]`: what a score has to reach to be among the best."""
        bar = self.scores[:, -1:]
        cut = scores.shape[1] - self.k
        if cut > 0 and np.isneginf(bar).any():  # nothing to compare with yet: the block's own
            own = np.partition(scores, cut, axis=1)[:, cut : cut + 1]
            return np.maximum(bar, own)
        return bar


def search(queries: np.ndarray, blocks: Iterable[Block], k: int) -> tuple[np.ndarray, np.ndarray]:
    """queries `[Q, D]` -> scores `[Q, k]`, best first, and ids `[Q, k]` (-1 where there are no
    more rows)."""
    best = TopK(len(queries), k)
    seen = 0
    for ids, vectors in blocks:
        for part in _parts(len(ids), seen, max(FIRST, CELLS // len(queries))):
            best.update(ids[part], queries @ vectors[part].T)
        seen += len(ids)
    return best.scores, best.ids


def _parts(rows: int, seen: int, most: int) -> Iterator[slice]:
    start = 0
    while start < rows:
        size = min(most, max(FIRST, GROWTH * (seen + start)))
        yield slice(start, start + size)
        start += size
