"""Heads on a frozen encoder: they end in `pooled [B, out_dim]`; `out_dim` comes from the task.

Legend: `B` batch, `T` tokens, `D` width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modalities.base import Features
from .base import Connector
from .layout import additive, at_least, mask_tokens, pooled_features, sincos, split_evenly


class LinearHead(Connector):
    """A linear probe on `features.vector()`: the pooled vector, else the mean of the tokens."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.map = nn.Linear(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> pooled [B, out_dim]`."""
        return pooled_features(features, self.map(_vector(features)))


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
        return pooled_features(features, self.map(_vector(features)))


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
        tokens = self.norm(mask_tokens(features.tokens, features.mask))
        if features.grid is not None:
            tokens = tokens + sincos(features.grid, self.in_dim, tokens)
        query = self.query.expand(len(tokens), -1, -1)
        padding = additive(features.mask, query)
        read = self.attention(query, tokens, tokens, padding, need_weights=False)[0]
        return pooled_features(features, self.map(read.squeeze(1)))


class Flatten(Connector):
    """Every token is squeezed to `width` numbers, and a map reads all of them, each at its place:
    for what is told by how much there is where (the head of PatchTST, Nie et al. 2023).

    grid: places that are read, from the first on; what is padding may lie beyond, tokens may not.
    """

    def __init__(self, in_dim: int, out_dim: int, *, grid: list[int], width: int = 8) -> None:
        super().__init__(in_dim, out_dim)
        at_least("flatten", "width", width, 1)
        if min(grid, default=0) < 1:
            raise ValueError(f"flatten: grid {grid}, expected one axis or more, of 1 or more")
        self.grid = tuple(grid)
        self.squeeze = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, width), nn.GELU())
        places = width * math.prod(grid)
        self.map = nn.Sequential(nn.LayerNorm(places), nn.Linear(places, out_dim))

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> pooled [B, out_dim]`."""
        tokens = self.squeeze(mask_tokens(features.tokens, features.mask))
        tokens = self._placed(mask_tokens(tokens, features.mask), features)
        return pooled_features(features, self.map(tokens.flatten(1)))

    def _placed(self, tokens: Tensor, features: Features) -> Tensor:
        """`[B, T, W] -> [B, *grid, W]`, cut and filled with zeros at the far ends."""
        grid = features.grid or (tokens.shape[1],)
        if len(grid) != len(self.grid):
            raise ValueError(
                f"flatten: reads a grid of {len(self.grid)} axes, the features have {grid}; say "
                "grid with as many"
            )
        if grid == self.grid:
            return tokens
        inside = tuple(slice(n) for n in self.grid)
        kept = features.mask.unflatten(1, grid)[:, *inside]
        if not features.mask.is_meta and int(kept.sum()) < int(features.mask.sum()):
            raise ValueError(
                f"flatten: tokens lie beyond the grid {list(self.grid)}, the features have {grid}; "
                "say a larger grid"
            )
        tokens = tokens.unflatten(1, grid)[:, *inside]
        missing = [n - m for n, m in zip(self.grid, tokens.shape[1:-1], strict=True)]
        return F.pad(tokens, [0, 0, *(x for n in reversed(missing) for x in (0, n))])


def _vector(features: Features) -> torch.Tensor:
    """`[B, D]`, from blanked tokens: what stands in the padding must not reach the mean."""
    if features.pooled is not None:  # blanking copies every token
        return features.pooled
    return features.replace(tokens=mask_tokens(features.tokens, features.mask)).pool()
