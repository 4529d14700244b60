"""The recogniser whose hypothesis a diffusion decoder begins at: its texts, its loss, its errors.

Legend: `B` rows, `T` frames, `D` width, `V` classes, the blank (the last) among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...modalities.base import Features
from ..speech import ctc_losses


def select_rows(features: Features, rows: Sequence[int]) -> Features:
    """Some rows of a batch, in order."""
    if len(rows) == len(features.tokens):
        return features
    places = torch.tensor(rows, dtype=torch.long, device=features.tokens.device)
    return Features(features.tokens[places], features.mask[places])


def per_token_ctc_loss(logits: Tensor, features: Features, ids: Sequence[Sequence[int]]) -> Tensor:
    """The CTC loss of `logits [B, T, V]`, each row's by its tokens, summed over rows."""
    frames = [] if logits.is_meta else features.lengths.tolist()
    losses = ctc_losses(logits, frames, ids)
    lengths = torch.tensor([max(len(row), 1) for row in ids], device=losses.device)
    return (losses / lengths).sum()


def feature_dropout(features: Features, most: float, draws: torch.Generator) -> Features:
    """Features of which each row lost a share of its values, up to `most`: a recogniser that
    learned from these very rows makes the errors here that it makes on voices it never heard."""
    share = most * torch.rand(len(features.tokens), 1, 1, generator=draws)
    kept = torch.rand(features.tokens.shape, generator=draws) >= share
    scaled = (kept / (1 - share)).to(features.tokens)
    return Features(features.tokens.detach() * scaled, features.mask)
