"""Rows of vectors and their scores, and exact search: one pass of a blocked matrix product, the
best kept as it goes.

Blocks grow, so that the bar which a score has to clear is high before the bulk of the rows
comes by, and hardly any of them has to be looked at. Memory is bounded by the block.

Legend: `Q` queries, `D` width, `B` rows of a block, `T` tokens, `k` hits of a query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch
from scipy.sparse import csr_array

FIRST = 4096
GROWTH = 8
CELLS = 2**20
"""Scores of one product: 4 MB, which a core's cache takes."""

RESCORED = 4
"""A search of bits scores so many times k of the nearest by signs again."""

LEVELS = 127


class Rows(Protocol):
    """Vectors of a block. `part`: some of them. `scores`: `[Q, B]` with the queries; -inf for rows
    that are surely not among the k best. `kept`: the same rows as they are searched fastest, for
    more than one search. divisible: a part costs less than the whole. nbytes: size in memory."""

    divisible: ClassVar[bool]

    @property
    def nbytes(self) -> int: ...

    def kept(self) -> Rows: ...

    def __len__(self) -> int: ...

    def part(self, rows: slice) -> Rows: ...

    def scores(self, queries: Any, k: int) -> np.ndarray: ...


@dataclass(frozen=True)
class DenseRows:
    """Vectors `[B, D]` as they are stored."""

    divisible: ClassVar[bool] = True

    vectors: np.ndarray
    storage: str = "float32"

    @property
    def nbytes(self) -> int:
        return int(self.vectors.nbytes)

    def kept(self) -> DenseRows:
        return self

    def __len__(self) -> int:
        return len(self.vectors)

    def part(self, rows: slice) -> DenseRows:
        return DenseRows(self.vectors[rows], self.storage)

    def floats(self) -> np.ndarray:
        """Return `[B, D]` float32."""
        if self.storage == "int8":
            return self.vectors.astype(np.float32) / LEVELS
        if self.storage == "binary":
            signs = np.unpackbits(self.vectors, axis=1).astype(np.float32) * 2 - 1
            return cast(np.ndarray, signs / np.sqrt(np.float32(signs.shape[1])))
        return self.vectors

    def scores(self, queries: np.ndarray, k: int) -> np.ndarray:
        if self.storage != "binary":
            return dot_products(queries, self.floats())
        bits = np.packbits(queries > 0, axis=1)
        scores = np.full((len(queries), len(self)), -np.inf, np.float32)
        for row, query in enumerate(bits):
            unequal = np.bitwise_count(self.vectors ^ query).sum(1, dtype=np.int64)
            count = min(RESCORED * k, len(self))
            near = np.sort(np.argpartition(unequal, count - 1)[:count])
            scores[row, near] = DenseRows(self.vectors[near], "binary").floats() @ queries[row]
        return scores


def dot_products(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`[Q, D]`, `[B, D]` -> `[Q, B]`. One query is read along the rows, which is memory's own speed
    and twice that of a BLAS product. Of several, the rows come first in the product."""
    if len(queries) == 1:
        return cast(np.ndarray, np.vecdot(rows, queries[0])[None])
    return matrix_product(rows, queries).T


def matrix_product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`[A, D]`, `[B, D]` -> `[A, B]`, by torch unless it takes no array of a file."""
    if not (first.flags.writeable and second.flags.writeable):
        return cast(np.ndarray, first @ second.T)
    return (torch.from_numpy(first) @ torch.from_numpy(second).T).numpy()


@dataclass(frozen=True)
class SparseRows:
    """Sparse vectors `[B, D]`."""

    divisible: ClassVar[bool] = True

    vectors: Any

    @property
    def nbytes(self) -> int:
        return int(self.vectors.data.nbytes + self.vectors.indices.nbytes)

    def kept(self) -> PostingRows:
        return PostingRows(self.vectors.T.tocsr())

    def __len__(self) -> int:
        return int(self.vectors.shape[0])

    def part(self, rows: slice) -> SparseRows:
        """A view: slicing a matrix copies its entries."""
        first, stop, _ = rows.indices(len(self))
        starts = self.vectors.indptr[first : stop + 1]
        entries = slice(starts[0], starts[-1])
        values, indices = self.vectors.data[entries], self.vectors.indices[entries]
        shape = (stop - first, self.vectors.shape[1])
        return SparseRows(csr_array((values, indices, starts - starts[0]), shape=shape))

    def scores(self, queries: Any, k: int) -> np.ndarray:
        # The rows come first: scipy turns the second factor to the first's layout at each product.
        return np.asarray((self.vectors @ queries.matrix.T).toarray().T, np.float32)


@dataclass(frozen=True)
class PostingRows:
    """The same by entry, `[D, B]`: a query reads the rows of its own entries alone, an inverted
    index."""

    divisible: ClassVar[bool] = False

    postings: Any

    @property
    def nbytes(self) -> int:
        return int(self.postings.data.nbytes + self.postings.indices.nbytes)

    def kept(self) -> PostingRows:
        return self

    def __len__(self) -> int:
        return int(self.postings.shape[1])

    def part(self, rows: slice) -> PostingRows:
        return PostingRows(self.postings[:, rows])

    def scores(self, queries: Any, k: int) -> np.ndarray:
        return np.asarray((queries.matrix @ self.postings).toarray(), np.float32)


@dataclass(frozen=True)
class MultiVectorRows:
    """tokens `[sum of T, D]` of all rows, starts `[B + 1]` of each in them."""

    divisible: ClassVar[bool] = True

    tokens: np.ndarray
    starts: np.ndarray

    @property
    def nbytes(self) -> int:
        return int(self.tokens.nbytes)

    def kept(self) -> MultiVectorRows:
        """Return a copy, which torch takes: a file's rows may not be written."""
        return MultiVectorRows(self.tokens.copy(), self.starts.copy())

    def __len__(self) -> int:
        return len(self.starts) - 1

    def part(self, rows: slice) -> MultiVectorRows:
        first, stop, _ = rows.indices(len(self))
        starts = self.starts[first : stop + 1]
        return MultiVectorRows(self.tokens[starts[0] : starts[-1]], starts - starts[0])

    def scores(self, queries: Sequence[np.ndarray], k: int) -> np.ndarray:
        """Return MaxSim; rows without a token have 0."""
        scores = np.zeros((len(queries), len(self)), np.float32)
        full = np.flatnonzero(np.diff(self.starts))
        if not len(full):
            return scores
        for row, query in enumerate(queries):
            if len(query):
                # [tokens of the query, sum of T]: a row's tokens are neighbours in memory.
                products = matrix_product(query, self.tokens)
                best = np.maximum.reduceat(products, self.starts[:-1][full], axis=1)
                scores[row, full] = best.sum(0)
        return scores


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
        if not vectors.divisible:
            best.update(ids, vectors.scores(queries, k))
        else:
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


def joined(blocks: Iterable[Block], rows: int, limit: int) -> list[Block] | None:
    """Return blocks in memory, None if they are of more bytes than `limit`; dense ones as one of
    all rows, whose product is the fastest."""
    ids, start, held = np.empty(rows, np.int64), 0, 0
    vectors, storage, others = np.empty((0, 0)), "float32", list[Block]()
    for block_ids, block in blocks:
        dense = isinstance(block, DenseRows)
        held += block.nbytes
        if (rows * block.nbytes // max(1, len(block)) if dense else held) > limit:
            return None
        if not isinstance(block, DenseRows):
            others.append((block_ids, block.kept()))
            continue
        if not start:
            vectors = np.empty((rows, block.vectors.shape[1]), block.vectors.dtype)
            storage = block.storage
        stop = start + len(block_ids)
        ids[start:stop], vectors[start:stop] = block_ids, block.vectors
        start = stop
    return [(ids, DenseRows(vectors, storage))] if start else others
