"""Statistics of training lengths, for cutting long signals into pieces of a familiar length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..uses import ChunkSpec

MOST = 8192
"""Number of histogram bins; longer rows fall into the last."""

USUAL = 0.9
"""Pieces of a long signal are as long as this quantile of the training lengths."""


class LengthHistogram(nn.Module):
    """Counts rows by their number of tokens, in a buffer, so that it is saved with the run.

    piece: tokens of a piece, in place of the quantile. overlap: the fraction of a piece that it
    shares with the next.
    """

    seen: Tensor

    def __init__(self, piece: int | None, overlap: float) -> None:
        super().__init__()
        self.piece, self.overlap = piece, overlap
        self.register_buffer("seen", torch.zeros(MOST + 1, dtype=torch.long))

    def add(self, lengths: Tensor) -> None:
        """Add the lengths `[B]` of a training batch."""
        self.seen += torch.bincount(lengths.clamp(max=MOST), minlength=MOST + 1)

    @property
    def longest(self) -> int:
        """Return the largest length in training; 0 before any."""
        lengths = self.seen.nonzero()
        return int(lengths[-1]) if len(lengths) else 0

    def window(self) -> ChunkSpec | None:
        """Return how a signal longer than all in training is cut; None if none was seen."""
        length = self.piece or self._usual()
        if length < 4:
            return None
        return ChunkSpec(length, int(length * self.overlap), max(length, self.longest))

    def _usual(self) -> int:
        shares = self.seen.cumsum(0) / self.seen.sum().clamp(min=1)
        return int((shares < USUAL).sum()) if self.longest else 0
