"""Losses on similarities of unit vectors: what belongs together is near, the rest is far.

InfoNCE: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(CLIP), 2021. Sigmoid: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023. Soft
weights: Srinivasa et al., "CWCL: Cross-Modal Transfer with Continuously Weighted Contrastive
Loss", 2023, as CellCLIP (2025) has it. Teachers: Croitoru et al., "TeachText", 2021.

Legend: `B` rows of this process, `N` rows of all processes, `D` width. Every loss is a sum over
the B rows, so that the sum over processes, divided by N, is the loss of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """logits `[B, N]`, targets `[B, N]` whose rows sum to one -> the sum over rows."""
    return -(targets * logits.log_softmax(1)).sum()


def pairwise_sigmoid(logits: Tensor, positive: Tensor) -> Tensor:
    """logits `[B, N]`, positive `[B, N]` bool -> `-sum log sigmoid(z * logit)`, z = +1 or -1."""
    signs = positive.to(logits.dtype) * 2 - 1
    return -F.logsigmoid(signs * logits).sum()


def uniform_targets(positive: Tensor) -> Tensor:
    """positive `[B, N]` bool -> each row's positives share its target evenly."""
    found = positive.float()
    return found / found.sum(1, keepdim=True)


def cwcl_targets(own: Tensor, every: Tensor, positive: Tensor) -> Tensor:
    """own `[B, D]`, every `[N, D]`, unit vectors of what was put in -> targets `[B, N]`.

    `w_ij = (1 + cos(x_i, x_j)) / 2`, 1 for positives, divided by the sum of its row.
    """
    weights = ((1 + own @ every.T) / 2).clamp(0, 1).masked_fill(positive, 1.0)
    return weights / weights.sum(1, keepdim=True)


def teachtext_loss(similarity: Tensor, teachers: Sequence[Tensor]) -> Tensor:
    """Smooth L1 of cosines `[B, N]` to the mean of the teachers' cosines: summed over rows,
    averaged over columns. Cosines have one scale, whatever the temperatures were."""
    mean = torch.stack(list(teachers)).mean(0)
    return F.smooth_l1_loss(similarity, mean, reduction="none").mean(1).sum()
