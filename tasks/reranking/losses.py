"""Losses of the scores of a query's candidates; usable without the engine.

Binary and softmax cross-entropy as in Nogueira and Cho, "Passage Re-ranking with BERT", 2019;
pairwise: RankNet (Burges et al., 2005); hinge: the triplet loss of PROP (Ma et al., 2020);
margin_mse: Hofstaetter et al., 2020.

Legend: `B` queries, `C` candidates of the query with most, `N` candidates in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ListLoss:
    """total: a sum. count: of how many. rows: `[B]`, the queries that are in it."""

    total: Tensor
    count: Tensor
    rows: Tensor


def to_lists(values: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return values `[N]` as `[B, C]`, and the mask of it: True where there is a candidate.

    rows: `[N]`, the query of each value, in ascending order. count: B.
    """
    counts = torch.zeros(count, dtype=torch.long, device=rows.device)
    counts = counts.scatter_add(0, rows, torch.ones_like(rows))
    places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    widest = int(counts.max()) if count and not counts.is_meta else len(rows)
    lists = values.new_zeros(count, widest).index_put((rows, places), values)
    return lists, torch.arange(widest, device=rows.device) < counts[:, None]


def binary(scores: Tensor, relevance: Tensor, mask: Tensor) -> ListLoss:
    """Compute the cross-entropy of `sigmoid(score)` and the relevance, of 0 to 1; a sum over
    candidates."""
    losses = F.binary_cross_entropy_with_logits(scores, relevance, reduction="none")
    return ListLoss(losses.masked_fill(~mask, 0).sum(), mask.sum(), mask.any(1))


def softmax(scores: Tensor, relevance: Tensor, mask: Tensor) -> ListLoss:
    """Compute the cross-entropy of the scores' softmax over a query's candidates and its
    relevances, divided by their sum; a sum over queries with a relevant candidate."""
    total = relevance.clamp(min=0).masked_fill(~mask, 0).sum(1, keepdim=True)
    targets = relevance.clamp(min=0).masked_fill(~mask, 0) / total.clamp(min=1e-12)
    log_probs = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).log_softmax(1)
    counted = total[:, 0] > 0
    value = -(targets * log_probs.masked_fill(~mask, 0)).sum()
    return ListLoss(value, counted.sum(), counted)


def pairwise(scores: Tensor, relevance: Tensor, mask: Tensor) -> ListLoss:
    """Compute `log(1 + exp(s_j - s_i))`, the mean over the pairs of a query with the relevance of i
    above that of j; a sum over queries with such a pair."""
    return _over_pairs(F.softplus(_margins(scores).neg()), relevance, mask)


def hinge(scores: Tensor, relevance: Tensor, mask: Tensor, margin: float = 1.0) -> ListLoss:
    """Compute `max(0, margin - s_i + s_j)` over the pairs of `pairwise`."""
    return _over_pairs((margin - _margins(scores)).relu(), relevance, mask)


def margin_mse(scores: Tensor, relevance: Tensor, mask: Tensor) -> ListLoss:
    """Compute the squared difference of the margins `s_0 - s_j` and those of the relevances, which
    are a teacher's scores, the mean over the further candidates j of a query; a sum over queries
    with two candidates or more."""
    margins, targets = scores[:, :1] - scores[:, 1:], relevance[:, :1] - relevance[:, 1:]
    further = mask[:, 1:]
    squared = (margins - targets).square().masked_fill(~further, 0).sum(1)
    counts = further.sum(1)
    return ListLoss((squared / counts.clamp(min=1)).sum(), (counts > 0).sum(), counts > 0)


def _margins(values: Tensor) -> Tensor:
    """Return `[B, C, C]`, the value of i less that of j."""
    return values[:, :, None] - values[:, None, :]


def _over_pairs(losses: Tensor, relevance: Tensor, mask: Tensor) -> ListLoss:
    pairs = (_margins(relevance) > 0) & mask[:, :, None] & mask[:, None, :]
    counts = pairs.sum((1, 2))
    total = losses.masked_fill(~pairs, 0).sum((1, 2)) / counts.clamp(min=1)
    return ListLoss(total.sum(), (counts > 0).sum(), counts > 0)
