"""Losses on the similarities of unit vectors.

InfoNCE: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(CLIP), 2021. Sigmoid: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023. Soft
weights: Srinivasa et al., "CWCL: Cross-Modal Transfer with Continuously Weighted Contrastive Loss",
2023, as in CellCLIP (2025). Teachers: Croitoru et al., "TeachText", 2021. Hardness: Lan et al.,
"LLaVE", 2025, equation 5. Prefixes: Kusupati et al., "Matryoshka Representation Learning", 2022.
CoSENT: Huang et al., 2024. MarginMSE: Hofstaetter et al., 2020.

Legend: `B` rows of this process, `N` rows of all processes, `C` candidates: the N rows and hard
negatives, `D` width. Every loss but `cosent` is a sum over the B rows, so that the sum over
processes, divided by N, is the loss of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common import l2_normalize


def cross_entropy(logits: Tensor, targets: Tensor, compared: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of logits `[B, C]` with targets `[B, C]` whose rows sum to one, a
    sum over rows; with one-hot targets this is InfoNCE, see `candidates.Comparison`. compared: `[B,
    C]` bool, the candidates of each row, whose targets are made to sum to one; all by default."""
    if compared is None:
        return -(targets * logits.log_softmax(1)).sum()
    targets = targets * compared
    targets = targets / targets.sum(1, keepdim=True)
    log_probs = logits.masked_fill(~compared, -torch.inf).log_softmax(1)
    return -(targets * log_probs.masked_fill(~compared, 0.0)).sum()


def pairwise_sigmoid(logits: Tensor, positive: Tensor, compared: Tensor | None = None) -> Tensor:
    """Return `-sum log sigmoid(z * logit)` of logits `[B, C]`; z = +1 if `positive [B, C]` is True,
    else -1. compared: `[B, C]` bool, the logits that count; all by default."""
    signs = positive.to(logits.dtype) * 2 - 1
    values = -F.logsigmoid(signs * logits)
    return (values if compared is None else values.masked_fill(~compared, 0.0)).sum()


def uniform_targets(positive: Tensor) -> Tensor:
    """Return targets `[B, N]` in which the positives of each row share its weight evenly."""
    targets = positive.float()
    return targets / targets.sum(1, keepdim=True)


def cwcl_targets(vectors: Tensor, all_vectors: Tensor, positive: Tensor) -> Tensor:
    """Return targets `[B, N]` from unit vectors `[B, D]` and those of all rows `[N, D]`.

    `w_ij = (1 + cos(x_i, x_j)) / 2`, 1 for positives, divided by the sum of its row.
    """
    weights = ((1 + vectors @ all_vectors.T) / 2).clamp(0, 1).masked_fill(positive, 1.0)
    return weights / weights.sum(1, keepdim=True)


def teachtext_loss(similarity: Tensor, teachers: Sequence[Tensor]) -> Tensor:
    """Return the smooth L1 loss of cosines `[B, N]` to the mean of the teachers' cosines, summed
    over rows and averaged over columns. Cosines have one scale, for any temperatures."""
    mean = torch.stack(list(teachers)).mean(0)
    return F.smooth_l1_loss(similarity, mean, reduction="none").mean(1).sum()


def triplet_hinge(cosines: Tensor, own_cosine: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Return `max(0, margin - own_cosine + cosine)`, the mean over the negatives of each row,
    summed over rows; zero for a row without a negative.

    cosines: `[B, C]` of each row with its candidates. own_cosine: `[B]` cosines with the row's
    positive. negative: `[B, C]` bool, which candidates are compared.
    """
    excess = (margin - own_cosine[:, None] + cosines).relu().masked_fill(~negative, 0.0)
    return (excess.sum(1) / negative.sum(1).clamp(min=1)).sum()


def likely_false_negatives(
    cosines: Tensor, own_cosine: Tensor, positive: Tensor, margin: float
) -> Tensor:
    """Return `[B, C]` bool: candidates that are not positives, and are nearer to the row than
    `own_cosine [B]`, the row's positive, less a margin. No gradient passes."""
    limit = own_cosine.detach()[:, None] - margin
    return (cosines.detach() > limit) & ~positive


def harden(logits: Tensor, cosines: Tensor, positive: Tensor, strength: float) -> Tensor:
    """Return logits to which `strength * cosine` is added, without a gradient, where a candidate is
    a negative: the nearer it is, the more it weighs in the softmax."""
    return logits + (strength * cosines.detach()).masked_fill(positive, 0.0)


def prefix(vectors: Tensor, width: int) -> Tensor:
    """Return the first coordinates of vectors `[..., D]`, at unit length."""
    return l2_normalize(vectors[..., :width])


def cosent(cosines: Tensor, scores: Tensor, scale: float | Tensor = 20.0) -> Tensor:
    """Return `log(1 + sum exp(scale * (cos_i - cos_j)))` over the pairs with `score_i < score_j`.

    cosines, scores: `[N]` of the pairs of all processes; a number for all of them, not a sum.
    """
    differences = scale * (cosines[:, None] - cosines[None])
    differences = differences.masked_fill(~(scores[:, None] < scores[None]), -torch.inf)
    return torch.cat([cosines.new_zeros(1), differences.flatten()]).logsumexp(0)


def margin_mse(positive: Tensor, negative: Tensor, row: Tensor, scores: Tensor) -> Tensor:
    """Return the squared errors of the margins of positives over negatives to those of a teacher,
    the mean over the negatives of each row, summed over rows.

    positive: `[B]`. negative, row: `[M]`, one of each negative, the same row's in its order.
    scores: `[B, 1 + M]` of the teacher, of the positive and then of the row's negatives.
    """
    counts = count_rows(row, len(positive))
    order = row.argsort(stable=True)
    place = torch.empty_like(row)
    place[order] = (
        torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row[order]]
    )
    target = scores[row, 0] - scores[row, 1 + place]
    errors = (positive[row] - negative - target).square()
    return (errors / counts[row]).sum()


def count_rows(row: Tensor, rows: int) -> Tensor:
    """Return `[B]`, how often each row stands in `row [M]`; on the meta device too."""
    return torch.zeros(rows, dtype=torch.long, device=row.device).index_add(
        0, row, torch.ones_like(row)
    )
