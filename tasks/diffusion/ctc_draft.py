"""The CTC head that writes drafts: its loss, and dropout of its input.

Legend: `B` rows, `T` frames, `D` width, `V` classes, the blank (the last) among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...modalities.base import Features
from ..speech import ctc_losses


def select_rows(features: Features, rows: Sequence[int]) -> Features:
    """Return some rows of a batch, in order."""
    if len(rows) == len(features.tokens):
        return features
    indices = torch.tensor(rows, dtype=torch.long, device=features.tokens.device)
    return Features(features.tokens[indices], features.mask[indices])


def per_token_ctc_loss(logits: Tensor, features: Features, ids: Sequence[Sequence[int]]) -> Tensor:
    """Return the CTC loss of `logits [B, T, V]`, each row's divided by its tokens, summed over
    rows."""
    frames = [] if logits.is_meta else features.lengths.tolist()
    losses = ctc_losses(logits, frames, ids)
    lengths = torch.tensor([max(len(row), 1) for row in ids], device=losses.device)
    return (losses / lengths).sum()


def feature_dropout(features: Features, most: float, draws: torch.Generator) -> Features:
    """Drop a random fraction of each row's values, up to `most`, so that the CTC head errs on
    training rows as it does on unseen speakers."""
    fraction = most * torch.rand(len(features.tokens), 1, 1, generator=draws)
    is_kept = torch.rand(features.tokens.shape, generator=draws) >= fraction
    scaled = (is_kept / (1 - fraction)).to(features.tokens)
    return Features(features.tokens.detach() * scaled, features.mask)
