"""Order of a query's candidates by their scores, and by those of the first step.

Gains are linear in the relevance, as in trec_eval. A tie counts against the query: of equal scores
the less relevant candidate comes first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

DEPTH = 10

NAMES = {
    "mrr": "mean of 1 / rank of the first relevant candidate, 0 without one",
    "ndcg@10": "gain of the first ten, discounted, over that of the best order",
    "accuracy@1": "fraction of queries whose first candidate is relevant",
    "chance@1": "the same of a random order",
    "before_mrr": "mrr by the scores of the first step",
    "before_ndcg@10": "ndcg@10 by the scores of the first step",
}


def ranked(scores: Sequence[float], relevance: Sequence[float]) -> list[float]:
    """Return relevances in the order of the scores."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], relevance[i]))
    return [relevance[i] for i in order]


def reciprocal_rank(relevance: Sequence[float]) -> float:
    """Return 1 / rank of the first positive relevance; 0 without one."""
    return next((1 / rank for rank, value in enumerate(relevance, 1) if value > 0), 0.0)


def ndcg(relevance: Sequence[float], depth: int = DEPTH) -> float:
    """Return the nDCG of relevances in their order; 0 if none is positive."""

    def gain(values: Sequence[float]) -> float:
        return sum(max(0.0, v) / math.log2(i + 2) for i, v in enumerate(values[:depth]))

    best = gain(sorted(relevance, reverse=True))
    return gain(relevance) / best if best else 0.0


class RerankingMetrics:
    """Predictions have `scores`, references `relevance` and perhaps `first_scores`, a number a
    candidate. Queries without a candidate are left out."""

    def __init__(self) -> None:
        self.rows: list[tuple[list[float], list[float], list[float] | None]] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        for prediction, reference in zip(predictions, references, strict=True):
            scores = prediction["scores"]
            relevance = reference.get("relevance") or [1.0, *[0.0] * (len(scores) - 1)]
            if len(relevance) != len(scores):
                raise ValueError(
                    f"relevance: {len(relevance)} values for {len(scores)} candidates of a row"
                )
            if scores:
                self.rows.append((scores, relevance, reference.get("first_scores")))

    def compute(self) -> dict[str, float]:
        if not self.rows:
            raise ValueError("reranking: no candidate was scored; is the split empty?")
        after = [ranked(scores, relevance) for scores, relevance, _ in self.rows]
        values = {
            "mrr": _mean([reciprocal_rank(row) for row in after]),
            "ndcg@10": _mean([ndcg(row) for row in after]),
            "accuracy@1": _mean([float(row[0] > 0) for row in after]),
            "chance@1": _mean([sum(v > 0 for v in row) / len(row) for row in after]),
        }
        first = [(scores, relevance) for _, relevance, scores in self.rows if scores is not None]
        if first:
            before = [ranked(scores, relevance) for scores, relevance in first]
            values["before_mrr"] = _mean([reciprocal_rank(row) for row in before])
            values["before_ndcg@10"] = _mean([ndcg(row) for row in before])
        return values


class ClassMetrics:
    """Accuracy of the class with the largest of several scores, over all candidates."""

    def __init__(self) -> None:
        self.correct: list[float] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        for prediction, reference in zip(predictions, references, strict=True):
            pairs = zip(prediction["scores"], reference["relevance"], strict=True)
            self.correct += [float(max(range(len(s)), key=s.__getitem__) == k) for s, k in pairs]

    def compute(self) -> dict[str, float]:
        if not self.correct:
            raise ValueError("reranking: no candidate was scored; is the split empty?")
        return {"accuracy": _mean(self.correct)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
