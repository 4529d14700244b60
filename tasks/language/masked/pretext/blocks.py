"""Layers of disposable decoders.

Legend: `B` rows, `Q` queries, `K` keys, `D` width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """A transformer layer whose queries read given keys: attention, then a network of four times
    the width; norms in front (pre-LN)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads: found {heads}, expected a divisor of the width {dim}")
        self.heads = heads
        self.query_norm, self.key_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, queries: Tensor, keys: Tensor, visible: Tensor) -> Tensor:
        """Return `[B, Q, D]`; visible: bool `[B, Q, K]`, or `[B, 1, K]`. A query that sees nothing
        reads zeros."""
        query = self._split(self.query(self.query_norm(queries)))
        normed = self.key_norm(keys)
        key, value = self._split(self.key(normed)), self._split(self.value(normed))
        lowest = torch.finfo(query.dtype).min
        bias = torch.zeros_like(visible, dtype=query.dtype).masked_fill(~visible, lowest)
        read = F.scaled_dot_product_attention(query, key, value, bias[:, None])
        read = read.transpose(1, 2).flatten(2) * visible.any(-1, keepdim=True)
        hidden = queries + self.out(read)
        return hidden + torch.as_tensor(self.mlp(hidden))

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Positions(nn.Module):
    """Learned positions `[L, D]` up to a limit."""

    def __init__(self, limit: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(limit, dim)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, length: int) -> Tensor:
        if length > self.table.num_embeddings:
            raise ValueError(
                f"max_length: a text has {length} tokens, the decoder "
                f"{self.table.num_embeddings} positions; raise max_length of the pretext"
            )
        positions: Tensor = self.table.weight[:length]
        return positions
