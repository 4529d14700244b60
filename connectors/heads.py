"""Heads on a frozen encoder: they end in `pooled [B, out_dim]`; `out_dim` comes from the task.

Legend: `B` batch, `T` tokens, `D` width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modalities.base import Features, Fraction, PositiveInt
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
    """Two linear layers with a GELU between them, on `features.vector()`.

    hidden: width between the layers (default: in_dim). dropout: before the second one.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        hidden: PositiveInt | None = None,
        dropout: Fraction = 0.0,
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
    """Attentive probing (V-JEPA, Bardes et al. 2024): a learned query attends to the tokens, then a
    linear layer.

    The tokens of a grid get fixed sine-cosine positions of any size, so that locations can be
    predicted from encoders whose tokens hold few. heads: must divide in_dim.
    """

    def __init__(self, in_dim: int, out_dim: int, *, heads: PositiveInt = 8) -> None:
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
    """Each token is projected to `width` numbers, and a linear layer reads all of them by position:
    for targets that depend on where things are (the head of PatchTST, Nie et al. 2023).

    grid: positions that are read, from the first on; padding may lie beyond, tokens may not.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, grid: list[PositiveInt], width: PositiveInt = 8
    ) -> None:
        super().__init__(in_dim, out_dim)
        at_least("flatten", "width", width, 1)
        if min(grid, default=0) < 1:
            raise ValueError(f"flatten: grid {grid}, expected one axis or more, of 1 or more")
        self.grid = tuple(grid)
        self.squeeze = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, width), nn.GELU())
        cells = width * math.prod(grid)
        self.map = nn.Sequential(nn.LayerNorm(cells), nn.Linear(cells, out_dim))

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> pooled [B, out_dim]`."""
        tokens = self.squeeze(mask_tokens(features.tokens, features.mask))
        tokens = self._placed(mask_tokens(tokens, features.mask), features)
        return pooled_features(features, self.map(tokens.flatten(1)))

    def _placed(self, tokens: Tensor, features: Features) -> Tensor:
        """Return `[B, *grid, W]`, cut or filled with zeros at the far ends."""
        grid = features.grid or (tokens.shape[1],)
        if len(grid) != len(self.grid):
            raise ValueError(
                f"flatten: reads a grid of {len(self.grid)} axes, the features have {grid}; set "
                "grid with as many"
            )
        if grid == self.grid:
            return tokens
        inside = tuple(slice(n) for n in self.grid)
        real = features.mask.unflatten(1, grid)[:, *inside]
        if not features.mask.is_meta and int(real.sum()) < int(features.mask.sum()):
            raise ValueError(
                f"flatten: tokens lie beyond the grid {list(self.grid)}, the features have {grid}; "
                "set a larger grid"
            )
        tokens = tokens.unflatten(1, grid)[:, *inside]
        missing = [n - m for n, m in zip(self.grid, tokens.shape[1:-1], strict=True)]
        return F.pad(tokens, [0, 0, *(x for n in reversed(missing) for x in (0, n))])


def _vector(features: Features) -> torch.Tensor:
    """Return `[B, D]` from masked tokens: padding must not affect the mean."""
    if features.pooled is not None:  # masking copies every token
        return features.pooled
    return features.replace(tokens=mask_tokens(features.tokens, features.mask)).pool()
