"""The lengths that training saw, so that a long signal can be cut into pieces like them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..uses import ChunkSpec

MOST = 8192
"""Lengths that are told apart; longer ones count as this."""

USUAL = 0.9
"""Pieces of a long signal are as long as this quantile of the lengths of training."""


class LengthHistogram(nn.Module):
    """Counts rows by their number of tokens; a buffer, so that it is saved with the run.

    piece: tokens of a piece, in place of the quantile. overlap: the part of a piece that it
    shares with the next.
    """

    seen: Tensor

    def __init__(self, piece: int | None, overlap: float) -> None:
        super().__init__()
        self.piece, self.overlap = piece, overlap
        self.register_buffer("seen", torch.zeros(MOST + 1, dtype=torch.long))

    def add(self, lengths: Tensor) -> None:
        """Lengths `[B]` of a training batch."""
        self.seen += torch.bincount(lengths.clamp(max=MOST), minlength=MOST + 1)

    @property
    def longest(self) -> int:
        """The most tokens that training saw; 0 before any."""
        found = self.seen.nonzero()
        return int(found[-1]) if len(found) else 0

    def window(self) -> ChunkSpec | None:
        """How a signal longer than all that training saw is cut; None where none is known."""
        length = self.piece or self._usual()
        if length < 4:
            return None
        return ChunkSpec(length, int(length * self.overlap), max(length, self.longest))

    def _usual(self) -> int:
        shares = self.seen.cumsum(0) / self.seen.sum().clamp(min=1)
        return int((shares < USUAL).sum()) if self.longest else 0
