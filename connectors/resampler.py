"""Resampler: a fixed number of learned queries attends to any number of tokens.

Perceiver IO (Jaegle et al. 2021), Flamingo's resampler (Alayrac et al. 2022), BLIP-2's Q-Former (Li
et al. 2023). Legend: `B` batch, `T` tokens, `Q` queries, `D` width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..modalities.base import Count, Features, PositiveInt
from .base import Connector
from .layout import additive, at_least, mask_tokens, sincos, split_evenly


class Resampler(Connector):
    """`queries` learned vectors of width out_dim, through `depth` layers that attend to the tokens.

    heads: must divide out_dim. self_attention: the queries also attend to each other, as in the
    Q-Former. positions: add to the tokens where they are on their grid (sines and cosines): of a
    clip, the order of its frames. The queries of a sample without a real token are padding.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        queries: PositiveInt = 32,
        depth: Count = 2,
        heads: PositiveInt = 8,
        self_attention: bool = False,
        positions: bool = False,
    ) -> None:
        super().__init__(in_dim, out_dim)
        self.positions = positions
        at_least("resampler", "queries", queries, 1)
        at_least("resampler", "depth", depth, 1)
        split_evenly("resampler", out_dim, heads)
        self.queries = nn.Parameter(torch.randn(queries, out_dim) * 0.02)
        self.read = nn.LayerNorm(in_dim)
        self.layers = nn.ModuleList(
            _Layer(in_dim, out_dim, heads, self_attention) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, features: Features) -> Features:
        """Return `[B, Q, out_dim]` of `[B, T, in_dim]`, without a grid."""
        tokens = self.read(mask_tokens(features.tokens, features.mask))
        if self.positions:
            if features.grid is None:
                raise ValueError("resampler: positions: the encoder returns no grid; take them out")
            tokens = tokens + sincos(features.grid, tokens.shape[-1], tokens)
        padding = additive(features.mask, tokens)
        hidden = self.queries.expand(len(tokens), -1, -1)
        for layer in self.layers:
            hidden = layer(hidden, tokens, padding)
        mask = features.mask.any(1, keepdim=True).expand(hidden.shape[:2])
        return features.replace(
            tokens=mask_tokens(self.norm(hidden), mask),
            mask=mask,
            grid=None,
            spacing=None,
            origin=None,
            pooled=None,
        )


class _Layer(nn.Module):
    """Pre-norm: self-attention of the queries (optional), cross-attention to the tokens, then an
    MLP of 4 widths."""

    def __init__(self, in_dim: int, dim: int, heads: int, self_attention: bool) -> None:
        super().__init__()
        self.among_norm = nn.LayerNorm(dim) if self_attention else None
        self.among = nn.MultiheadAttention(dim, heads, batch_first=True) if self_attention else None
        self.cross_norm = nn.LayerNorm(dim)
        self.cross = nn.MultiheadAttention(dim, heads, kdim=in_dim, vdim=in_dim, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, hidden: Tensor, tokens: Tensor, padding: Tensor) -> Tensor:
        """hidden `[B, Q, D]`, tokens `[B, T, in_dim]`, padding `[B, T]` additive."""
        if self.among is not None and self.among_norm is not None:
            normed = self.among_norm(hidden)
            hidden = hidden + self.among(normed, normed, normed, need_weights=False)[0]
        query = self.cross_norm(hidden)
        hidden = hidden + self.cross(query, tokens, tokens, padding, need_weights=False)[0]
        return hidden + self.mlp(hidden)
