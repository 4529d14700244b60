"""Heads on a frozen encoder: they end in `pooled [B, out_dim]`; `out_dim` comes from the task.

Legend: `B` batch, `T` tokens, `D` width.
"""

from __future__ import annotations

import torch
from torch import nn

from ..modalities.base import Features
from ._parts import additive, blank, one, sincos, split_evenly
from .base import Connector


class LinearHead(Connector):
    """A linear probe on `features.vector()`: the pooled vector, else the mean of the tokens."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.map = nn.Linear(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> pooled [B, out_dim]`."""
        return one(features, self.map(_vector(features)))


class MLPHead(Connector):
    """Two linear maps with a GELU between them, on `features.vector()`.

    hidden: width between the maps (default: in_dim). dropout: before the second map.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__(in_dim, out_dim)
        width = hidden or in_dim
        self.map = nn.Sequential(
            nn.LayerNorm(in_dim),
            nn.Linear(in_dim, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, out_dim),
        )

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> pooled [B, out_dim]`."""
        return one(features, self.map(_vector(features)))


class AttentionProbe(Connector):
    """A learned query reads the tokens (attentive probing, V-JEPA, Bardes et al. 2024), then a map.

    The tokens of a grid get fixed sine-cosine positions, so that "where" can be read off an
    encoder whose tokens carry little of it, at any size. heads: must divide in_dim.
    """

    def __init__(self, in_dim: int, out_dim: int, *, heads: int = 8) -> None:
        super().__init__(in_dim, out_dim)
        split_evenly("attention_probe", in_dim, heads)
        self.norm = nn.LayerNorm(in_dim)
        self.query = nn.Parameter(torch.randn(1, in_dim) * 0.02)
        self.attention = nn.MultiheadAttention(in_dim, heads, batch_first=True)
        self.map = nn.Linear(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> pooled [B, out_dim]`."""
        tokens = self.norm(blank(features.tokens, features.mask))
        if features.grid is not None:
            tokens = tokens + sincos(features.grid, self.in_dim, tokens)
        query = self.query.expand(len(tokens), -1, -1)
        padding = additive(features.mask, query)
        read = self.attention(query, tokens, tokens, padding, need_weights=False)[0]
        return one(features, self.map(read.squeeze(1)))


def _vector(features: Features) -> torch.Tensor:
    """`[B, D]`, from blanked tokens: what stands in the padding must not reach the mean."""
    if features.pooled is not None:  # blanking copies every token
        return features.pooled
    return features.replace(tokens=blank(features.tokens, features.mask)).vector()
