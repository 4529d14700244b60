"""Retrieval metrics, in both directions of every pair of streams.

Names: `image_to_caption_recall@1` has pictures as queries and captions as candidates;
`..._same_region` ranks among rows of the same region only, which removes the part that the region
alone predicts; `recall@1` and `mrr` are the means over all directions, `image_caption_gap` the
distance of the two modalities' means; `caption_active_dims` the entries of a sparse vector that are
not zero, the mean over rows; `dim64_recall@1` is that of the vectors' first 64 coordinates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..common import l2_normalize
from .losses import prefix
from .ranking import Items, RankingResult, deduplicate, modality_gap, search
from .similarity import cat_embeddings, from_json

MEASURES = (
    "recall@1",
    "recall@5",
    "recall@10",
    "mrr",
    "median_rank",
    "ndcg@10",
    "map@10",
    "chance@1",
)
MAIN_MEASURES = ("recall@1", "mrr")
"""Measures that have a mean over all directions too."""


class RetrievalMetrics:
    """pairs: of streams. match: the column that `match` in the targets comes from, or None.
    widths: prefixes of the vectors that have a `dim..._recall@1`. similarity: of two embeddings.

    Predictions hold an embedding by stream, as `similarity.to_json` writes it; targets may hold
    `group` (rows that share it are right answers to each other) and `match`.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        match: str | None = None,
        widths: Iterable[int] = (),
        similarity: str = "cosine",
    ) -> None:
        self.pairs, self.match, self.widths = list(pairs), match, tuple(widths)
        self.similarity = similarity
        self.vectors: dict[str, list[Tensor]] = {s: [] for pair in self.pairs for s in pair}
        self.targets: list[Mapping[str, Any]] = []

    def update(
        self,
        predictions: Sequence[Mapping[str, Any]],
        targets: Sequence[Mapping[str, Any]],
    ) -> None:
        if predictions:
            for name, rows in self.vectors.items():
                rows.append(from_json([p[name] for p in predictions]))
        self.targets += targets

    def compute(self) -> dict[str, float]:
        """Return every metric by its name; `..._same_*` are NaN if no row has the column."""
        if not self.targets:
            raise ValueError("retrieval: no row was accumulated; is the split empty?")
        items = self._items()
        values: dict[str, float] = {}
        for a, b in self.directions:
            measures = self._search(items, (a, b)).measures()
            values |= {f"{a}_to_{b}_{name}": value for name, value in measures.items()}
        for name in MAIN_MEASURES:
            each = [values[f"{a}_to_{b}_{name}"] for a, b in self.directions]
            values[name] = sum(each) / len(each)
        for width in self.widths:
            short = {
                name: dataclasses.replace(side, vectors=prefix(side.vectors, width))
                for name, side in items.items()
            }
            firsts = [self._search(short, pair).measures()["recall@1"] for pair in self.directions]
            values[f"dim{width}_recall@1"] = sum(firsts) / len(firsts)
        for a, b in self.pairs if self.similarity == "cosine" else ():
            values[f"{a}_{b}_gap"] = modality_gap(items[a].vectors, items[b].vectors)
        if self.similarity == "dot":
            values |= {
                f"{name}_active_dims": float((side.vectors != 0).sum(1).float().mean())
                for name, side in items.items()
            }
        return values | (self._matched() if self.match is not None else {})

    @property
    def directions(self) -> list[tuple[str, str]]:
        return [direction for a, b in self.pairs for direction in ((a, b), (b, a))]

    def answers(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Return a dict a row: by direction, `rank` of the nearest right answer and the keys of the
        rows that came first, `nearest`."""
        items = self._items()
        rows: list[dict[str, Any]] = [{} for _ in keys]
        for a, b in self.directions:
            (queries, query_of), (candidates, item_of) = (
                deduplicate(items[a]),
                deduplicate(items[b]),
            )
            ranking = search(queries, candidates, self.similarity, (a, b) not in self.pairs)
            row_of = {item: keys[row] for row, item in reversed(list(enumerate(item_of.tolist())))}
            ranks, nearest = ranking.ranks[query_of, 0].tolist(), ranking.nearest[query_of].tolist()
            for row, rank, indices in zip(rows, ranks, nearest, strict=True):
                keys_of = [row_of[index] for index in indices if index >= 0]
                row[f"{a}_to_{b}"] = {"rank": int(rank), "nearest": keys_of}
        return rows

    def _matched(self) -> dict[str, float]:
        """Return the metrics among rows that share a value of the column."""
        have = [i for i, target in enumerate(self.targets) if target.get("match") is not None]
        measures = {direction: dict.fromkeys(MEASURES, math.nan) for direction in self.directions}
        if have:
            kinds = _numbered([self.targets[i]["match"] for i in have])
            present = {
                name: dataclasses.replace(items.take(torch.tensor(have)), kinds=kinds)
                for name, items in self._items().items()
            }
            measures = {pair: self._search(present, pair).measures() for pair in self.directions}
        return {
            f"{a}_to_{b}_{measure}_same_{self.match}": value
            for (a, b), values in measures.items()
            for measure, value in values.items()
        }

    def _items(self) -> dict[str, Items]:
        """Return each stream's rows; a row without a group forms its own group."""
        labels = [
            ("row", i) if t.get("group") is None else ("group", t["group"])
            for i, t in enumerate(self.targets)
        ]
        groups = _numbered(labels)
        return {
            name: Items(self.embeddings(rows), groups, torch.zeros_like(groups))
            for name, rows in self.vectors.items()
        }

    def embeddings(self, rows: Sequence[Tensor]) -> Tensor:
        embeddings = cat_embeddings(rows)
        return l2_normalize(embeddings) if self.similarity == "cosine" else embeddings

    def _search(self, items: Mapping[str, Items], pair: tuple[str, str]) -> RankingResult:
        (queries, _), (candidates, _) = (deduplicate(items[name]) for name in pair)
        return search(queries, candidates, self.similarity, pair not in self.pairs)


def _numbered(values: Sequence[Any]) -> Tensor:
    """Return `[N]` numbers from 0, equal for equal values."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(repr(value), len(numbers)) for value in values])
