"""Ranking measures against scikit-learn and torchmetrics, on random runs with ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from sensorium.tasks.contrastive.ranking import Items, search


def average_precision(right: torch.Tensor) -> float:
    """TREC's map_cut_10 by torchmetrics, which divides by the right answers that it sees."""
    value = retrieval_average_precision(ranked(right)[:10], right[:10])
    return float(value * right[:10].sum() / right.sum())


def ranked(right: torch.Tensor) -> torch.Tensor:
    """Return different scores of answers that are in order."""
    return torch.arange(len(right), 0, -1.0)


@pytest.mark.parametrize("levels", [3, 7, 10_000], ids="{} levels of scores".format)
@pytest.mark.parametrize("groups", [4, 12, 60])
def test_measures_are_those_of_the_libraries(levels: int, groups: int) -> None:
    """Of equal scores a wrong candidate stands first, which the libraries are told by a small
    difference; three levels of scores make nearly all of them equal."""
    rng = np.random.default_rng(levels + groups)
    queries, candidates, width = 15, 60, 6
    vectors = rng.integers(0, levels, (queries + candidates, width)).astype(np.float32)
    side, kinds = torch.tensor(vectors), torch.zeros(queries + candidates, dtype=torch.long)
    labels = torch.tensor(rng.integers(0, groups, queries + candidates))
    labels[queries : queries + groups] = torch.arange(groups)  # each has a right answer
    items = Items(side, labels, kinds)
    first = items.take(torch.arange(queries))
    second = items.take(torch.arange(queries, queries + candidates))
    result = search(first, second, "dot").measures()
    scores = (first.vectors @ second.vectors.T).double()
    right = first.groups[:, None] == second.groups
    # More than the share of a score by which ties are found, and less than a step of scores.
    told = scores - right * (2e-6 * scores.abs().clamp(min=1))
    order = torch.sort(-told, dim=1, stable=True).indices
    rows = [(ranked(r), r) for r in right.long().gather(1, order)]
    expected = {
        "ndcg@10": ndcg_score(right.numpy(), told.numpy(), k=10, ignore_ties=True),
        "mrr": np.mean([float(retrieval_reciprocal_rank(s, r)) for s, r in rows]),
        "recall@5": np.mean([float(retrieval_recall(s, r, top_k=5) > 0) for s, r in rows]),
    }
    if groups == 60:  # few right answers: none lies beyond the first ten of them
        expected["map@10"] = np.mean([average_precision(r) for _, r in rows])
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-5), name
