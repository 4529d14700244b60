"""Recall, reciprocal rank, median rank, nDCG and MAP over a whole split, in blocks.

A query may have several right answers: `recall@k` counts queries with one of them among the first
k, `mrr` and `median_rank` use the first of them, `ndcg@10` all (binary gains, Järvelin and
Kekäläinen 2002). Ties count against the query: a wrong candidate at the same distance ranks before.

Legend: `Q` queries, `C` candidates, `D` width, `R` right answers that are ranked (10 at most).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .similarity import compare

DEPTH = 10
"""Right answers of a query that are ranked."""

NEAREST = 5
"""Candidates of a query that are named."""

TIE = 1e-6
"""Cosines this close are equal, and larger similarities in proportion: one signal in two batches
has vectors that differ by 1e-7."""

SAME = 1e-5
"""Vectors of one signal, encoded in two batches, agree to this in every coordinate."""

QUERIES, CANDIDATES = 512, 8192
"""Rows of a block of similarities: 16 MB in float32, however long the split is."""


@dataclass(frozen=True)
class Items:
    """One side of a search. vectors `[., D]`, or `[., T, D]` with maxsim; groups, kinds `[.]`: a
    candidate is right if its group is the query's, and is ranked only if its kind is."""

    vectors: Tensor
    groups: Tensor
    kinds: Tensor

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: Tensor | slice) -> Items:
        return Items(self.vectors[rows], self.groups[rows], self.kinds[rows])


@dataclass(frozen=True)
class RankingResult:
    """ranks `[Q, R]` from 1, of the right answers from the nearest on, inf if there are fewer.
    right, candidates `[Q]`: their numbers. nearest `[Q, N]`: indices of the first candidates, -1
    where there are fewer."""

    ranks: Tensor
    right: Tensor
    candidates: Tensor
    nearest: Tensor

    def measures(self) -> dict[str, float]:
        """Return means over queries. chance@1: recall@1 of a random order."""
        first = self.ranks[:, 0]
        values = {f"recall@{k}": (first <= k).float().mean() for k in (1, 5, 10)}
        values["mrr"] = (1 / first).mean()
        values["median_rank"] = first.quantile(0.5)
        values["ndcg@10"] = self._ndcg().mean()
        values["map@10"] = self._average_precision().mean()
        values["chance@1"] = (self.right / self.candidates).mean()
        return {name: float(value) for name, value in values.items()}

    def _average_precision(self) -> Tensor:
        """Return the sum of the precisions at the right answers among the first 10, over the number
        of right answers (TREC's `map_cut_10`)."""
        numbers = torch.arange(1, self.ranks.shape[1] + 1)
        precisions = torch.where(self.ranks <= DEPTH, numbers / self.ranks, 0.0)
        return precisions.sum(1) / self.right

    def _ndcg(self) -> Tensor:
        gains = torch.where(self.ranks <= DEPTH, 1 / (self.ranks + 1).log2(), 0.0)
        ranks = torch.arange(1, self.ranks.shape[1] + 1)
        best = torch.where(ranks <= self.right[:, None], 1 / (ranks + 1.0).log2(), 0.0)
        return gains.sum(1) / best.sum(1)


def search(
    queries: Items, candidates: Items, similarity: str = "cosine", reverse: bool = False
) -> RankingResult:
    """Rank all candidates for each query, a block of similarities at a time.

    reverse: the candidates are the queries of the similarity, which need not be symmetric.
    """
    parts = [
        _search(queries.take(slice(i, i + QUERIES)), candidates, similarity, reverse)
        for i in _starts(queries)
    ]
    fields = ("ranks", "right", "candidates", "nearest")
    return RankingResult(*(torch.cat([getattr(p, f) for p in parts]) for f in fields))


def _starts(queries: Items) -> range:
    return range(0, len(queries), QUERIES)


def _search(queries: Items, candidates: Items, similarity: str, reverse: bool) -> RankingResult:
    depth = int(min(DEPTH, torch.unique(candidates.groups, return_counts=True)[1].max()))
    right_cosines = torch.full((len(queries), depth), -torch.inf)
    right, candidates_seen = torch.zeros(2, len(queries))
    count = min(NEAREST, len(candidates))
    top = torch.full((len(queries), count), -torch.inf)
    nearest = torch.full((len(queries), count), -1)
    for start, cosines, same, allowed in _blocks(queries, candidates, similarity, reverse):
        right += (same & allowed).sum(1)
        candidates_seen += allowed.sum(1)
        block = cosines.masked_fill(~(same & allowed), -torch.inf)
        right_cosines = torch.cat([right_cosines, block], 1).topk(depth, 1).values
        allowed_cosines = cosines.masked_fill(~allowed, -torch.inf)
        best, index = allowed_cosines.topk(min(count, cosines.shape[1]), 1)
        top, order = torch.cat([top, best], 1).topk(count, 1)
        nearest = torch.cat([nearest, start + index], 1).gather(1, order)
    before = torch.zeros(len(queries), depth)
    for _, cosines, same, allowed in _blocks(queries, candidates, similarity, reverse):
        wrong = cosines.masked_fill(same | ~allowed, -torch.inf)
        for k in range(depth):
            limit = right_cosines[:, k, None]
            before[:, k] += (wrong >= limit - TIE * limit.abs().clamp(min=1)).sum(1)
    ranks = before + torch.arange(1, depth + 1)
    return RankingResult(
        ranks.masked_fill(right_cosines.isinf(), torch.inf),
        right,
        candidates_seen,
        nearest.masked_fill(top.isinf(), -1),
    )


def _blocks(
    queries: Items, candidates: Items, similarity: str, reverse: bool
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Yield (index of the first candidate, similarities, same group, same kind), each `[Q,
    block]`."""
    size = CANDIDATES if similarity != "maxsim" else CANDIDATES // 128
    for start in range(0, len(candidates), size):
        block = candidates.take(slice(start, start + size))
        sides = (block.vectors, queries.vectors) if reverse else (queries.vectors, block.vectors)
        similarities = compare(similarity, *sides)
        yield (
            start,
            similarities.T if reverse else similarities,
            queries.groups[:, None] == block.groups,
            queries.kinds[:, None] == block.kinds,
        )


def deduplicate(items: Items) -> tuple[Items, Tensor]:
    """Merge rows of one group and kind with the same signal: return the items, and the item of each
    row. (Five captions of a picture are five rows and one picture.)"""
    vectors = items.vectors.flatten(1)
    direction = torch.randn(vectors.shape[1], generator=torch.Generator().manual_seed(0))
    # Equal vectors are neighbours in the order of any direction.
    order = (vectors @ direction).argsort()
    for column in (items.kinds, items.groups):
        order = order[column[order].argsort(stable=True)]
    ordered = items.take(order)
    new = (vectors[order].diff(dim=0).abs() > SAME).any(1)
    new |= (ordered.groups.diff() != 0) | (ordered.kinds.diff() != 0)
    firsts = torch.cat([torch.tensor([True]), new])
    item_of = torch.empty(len(items), dtype=torch.long)
    item_of[order] = firsts.cumsum(0) - 1
    return ordered.take(firsts.nonzero().squeeze(1)), item_of


def modality_gap(first: Tensor, second: Tensor) -> float:
    """Return the distance of two modalities' means `[., D]`: Liang et al., "Mind the Gap", 2022."""
    return float((first.mean(0) - second.mean(0)).norm())
