"""Losses and metrics of pairs that have scores.

CoSENT: Huang et al., 2024. MarginMSE: Hofstaetter et al., 2020.

Legend: `B` rows of this process, `N` rows of all processes, `M` hard negatives of the B rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..batch import Batch
from ..common import all_gather_with_grad
from .candidates import Comparison
from .losses import cosent, count_rows, margin_mse, prefix
from .metrics import RetrievalMetrics
from .similarity import compare_rows

SCORED = ("cosent", "margin_mse")


def scored_loss(
    comparison: Comparison,
    queries: Tensor,
    candidates: Tensor,
    negatives: Sequence[tuple[Tensor, Tensor]],
    batch: Batch,
    scale: Tensor,
) -> Tensor:
    """Return the loss of pairs of embeddings with the scores of their rows, a sum over rows; with
    `cosent` a collective.

    queries, candidates: of the B rows. negatives: the embeddings of hard negatives, and the row of
    each.
    """
    own, similarity = (
        compare_rows(comparison.similarity, queries, candidates),
        comparison.similarity,
    )
    scores = own.new_zeros(0, 1)
    if len(batch):
        scores = batch.label("scores", "has no score; `scores` names its column").to(own)
    if comparison.loss == "cosent":
        every, _ = all_gather_with_grad(torch.stack([own, scores[:, 0]], 1))
        return cosent(every[:, 0], every[:, 1], scale) * len(batch)
    rows = [row.to(own.device) for _, row in negatives]
    wrong = [
        compare_rows(similarity, queries[row], vectors)
        for (vectors, _), row in zip(negatives, rows, strict=True)
    ]
    check_scores(batch, count_rows(torch.cat(rows), len(batch)) + 1)
    return margin_mse(own, torch.cat(wrong), torch.cat(rows), scores)


def check_scores(batch: Batch, expected: Tensor) -> None:
    """Raise ValueError if a row has not one score for its positive and for each negative."""
    if expected.is_meta or not len(batch):
        return
    counts = batch.label_masks["scores"].sum(1)
    for key, count, right in zip(batch.keys, counts.tolist(), expected.tolist(), strict=True):
        if count != right:
            raise ValueError(
                f"row {key!r}: has {count} scores, expected {right}: of its positive and of its "
                f"{right - 1} hard negatives"
            )


class ScoreMetrics:
    """Correlation of the similarities of pairs with their scores: `spearman` and `pearson`, the
    mean over all pairs of streams, and `dim64_spearman` of the vectors' first 64 coordinates. NaN
    if one of the two is constant."""

    def __init__(
        self, pairs: Sequence[tuple[str, str]], similarity: str, widths: Iterable[int] = ()
    ) -> None:
        self.search = RetrievalMetrics(pairs, None, widths, similarity)

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        self.search.update(predictions, targets)

    def compute(self) -> dict[str, float]:
        scores = torch.tensor([_score(target) for target in self.search.targets])
        values = {
            "spearman": _mean([_spearman(s, scores) for s in self.similarities()]),
            "pearson": _mean([_pearson(s, scores) for s in self.similarities()]),
        }
        for width in self.search.widths:
            similarities = self.similarities(width)
            values[f"dim{width}_spearman"] = _mean([_spearman(s, scores) for s in similarities])
        return values

    def similarities(self, width: int | None = None) -> list[Tensor]:
        """Return the similarities `[N]` of each pair of streams, of a prefix of the vectors."""
        if not self.search.targets:
            raise ValueError("scores: no row was accumulated; is the split empty?")
        sides = {name: self.search.embeddings(rows) for name, rows in self.search.vectors.items()}
        if width is not None:
            sides = {name: prefix(vectors, width) for name, vectors in sides.items()}
        return [
            compare_rows(self.search.similarity, sides[a], sides[b]) for a, b in self.search.pairs
        ]

    def answers(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Return the similarity of each row by pair of streams."""
        names = [f"{a}_{b}_similarity" for a, b in self.search.pairs]
        columns = [column.tolist() for column in self.similarities()]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _score(target: Mapping[str, Any]) -> float:
    if not isinstance(target.get("score"), (int, float)):
        raise ValueError(f"scores: found {target.get('score')!r} in a row, expected a number")
    return float(target["score"])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _pearson(first: Tensor, second: Tensor) -> float:
    first, second = first.double() - first.double().mean(), second.double() - second.double().mean()
    return float((first * second).sum() / (first.norm() * second.norm()))


def _spearman(first: Tensor, second: Tensor) -> float:
    return _pearson(_ranks(first), _ranks(second))


def _ranks(values: Tensor) -> Tensor:
    """Return ranks `[N]`; equal values share the mean of theirs."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]
