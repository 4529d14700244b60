"""Losses on the similarities of unit vectors.

InfoNCE: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(CLIP), 2021. Sigmoid: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023. Soft
weights: Srinivasa et al., "CWCL: Cross-Modal Transfer with Continuously Weighted Contrastive Loss",
2023, as in CellCLIP (2025). Teachers: Croitoru et al., "TeachText", 2021.

Legend: `B` rows of this process, `N` rows of all processes, `D` width. Every loss is a sum over the
B rows, so that the sum over processes, divided by N, is the loss of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of logits `[B, N]` with targets `[B, N]` whose rows sum to one, a
    sum over rows."""
    return -(targets * logits.log_softmax(1)).sum()


def pairwise_sigmoid(logits: Tensor, positive: Tensor) -> Tensor:
    """Return `-sum log sigmoid(z * logit)` of logits `[B, N]`; z = +1 if `positive [B, N]` is True,
    else -1."""
    signs = positive.to(logits.dtype) * 2 - 1
    return -F.logsigmoid(signs * logits).sum()


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
    over rows and averaged over columns. Cosines have one scale, whatever the temperatures."""
    mean = torch.stack(list(teachers)).mean(0)
    return F.smooth_l1_loss(similarity, mean, reduction="none").mean(1).sum()
