"""Connectors of sets and sequences of items: cells of a microscope's picture, turns of a dialogue.

Legend: `B` rows, `N` items of all rows, `M` of the longest row, `C` channels, `T` tokens, `D`
width.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from ..modalities.base import Features, Fraction, PositiveInt
from .base import Between, Connector
from .layout import (
    additive,
    linear_if_needed,
    mask_tokens,
    pooled_features,
    sincos,
    split_evenly,
)
from .poolers import GatedAttention


class Block(nn.Module):
    """A layer of a transformer that reads all tokens, normalized before (Xiong et al. 2020)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, padding: Tensor) -> Tensor:
        """tokens `[B, T, D]`, padding `[B, T]` additive."""
        x = self.norm(tokens)
        tokens = tokens + self.dropout(self.attention(x, x, x, padding, need_weights=False)[0])
        return tokens + self.dropout(self.mlp(self.norm_mlp(tokens)))


class Transformer(Connector):
    """Layers of a transformer over the tokens, whose number is kept.

    depth: layers. heads: must divide in_dim. positions: add sines and cosines of the tokens' places
    along the axes of their grid; without them the tokens are a set.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        depth: PositiveInt = 2,
        heads: PositiveInt = 8,
        positions: bool = True,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__(in_dim, out_dim)
        split_evenly("transformer", in_dim, heads)
        self.positions = positions
        self.blocks = nn.ModuleList(Block(in_dim, heads, dropout) for _ in range(depth))
        self.norm, self.map = nn.LayerNorm(in_dim), linear_if_needed(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, T, out_dim]`, same mask and grid."""
        tokens = mask_tokens(features.tokens, features.mask)
        if self.positions:
            grid = features.grid or (tokens.shape[1],)
            tokens = tokens + sincos(grid, self.in_dim, tokens)
        padding = additive(features.mask, tokens)
        for block in self.blocks:
            tokens = block(tokens, padding)
        tokens = mask_tokens(self.map(self.norm(tokens)), features.mask)
        return features.replace(tokens=tokens, pooled=None)


class ChannelTransformer(Connector):
    """Each channel is pooled over the items by gated attention, and a transformer reads the
    channels: any order of the items yields the same vector (Lu et al., "CellCLIP", 2025).

    The tokens lie on a grid of items and channels. channels: their number; each has a learned
    embedding. hidden: width of the gates. depth, heads: of the transformer. A channel without a
    token in any item is left out.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        channels: PositiveInt,
        hidden: PositiveInt = 128,
        depth: PositiveInt = 2,
        heads: PositiveInt = 8,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__(in_dim, out_dim)
        split_evenly("channel_transformer", in_dim, heads)
        self.channels = channels
        self.pool = GatedAttention(in_dim, in_dim, hidden=hidden)
        self.names = nn.Parameter(torch.randn(channels, in_dim) * 0.02)
        self.whole = nn.Parameter(torch.randn(1, 1, in_dim) * 0.02)
        self.norm_in, self.norm = nn.LayerNorm(in_dim), nn.LayerNorm(in_dim)
        self.blocks = nn.ModuleList(Block(in_dim, heads, dropout) for _ in range(depth))
        self.map = nn.Linear(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, M * C, in_dim]` on a grid `(M, C)` -> pooled `[B, out_dim]`."""
        if not features.mask.is_meta and not features.mask.any():  # no row has an item
            tokens = features.tokens.new_zeros(len(features.mask), self.channels, self.in_dim)
            mask = features.mask.new_zeros(tokens.shape[:2])
            features = features.replace(tokens=tokens, mask=mask, grid=(1, self.channels))
        grid = features.grid or ()
        if len(grid) != 2 or grid[1] != self.channels:
            raise ValueError(
                f"channel_transformer: the tokens lie on the grid {grid or None}, expected items "
                f"and {self.channels} channels; set channels, or take an encoder with a token a "
                "channel"
            )
        rows = len(features.mask)
        tokens = features.tokens.unflatten(1, grid).transpose(1, 2).flatten(0, 1)  # [B C, M, D]
        mask = features.mask.unflatten(1, grid).transpose(1, 2).flatten(0, 1)
        pooled: Features = self.pool(Features(tokens, mask))
        channels = pooled.tokens.view(rows, self.channels, self.in_dim) + self.names
        x = torch.cat([self.whole.expand(rows, -1, -1), self.norm_in(channels)], 1)
        present = mask.any(1).view(rows, self.channels)
        padding = additive(torch.cat([present.new_ones(rows, 1), present], 1), x)
        for block in self.blocks:
            x = block(x, padding)
        return pooled_features(features, self.map(self.norm(x[:, 0])))


class Bag(Connector):
    """The items of a row, read together: a cell of the stream is a list, and `over` reads the
    features of its items as one sequence. For a task the row has one signal.

    item: a connector of each item alone, such as `mean`; without it the tokens of all items lie on
    a grid, `(items, tokens)`. over: `gated_attention` and `mean` of a set, `transformer` of a
    sequence (a two-level encoder: Chapuis et al., "Hierarchical Pre-training for Sequence Labelling
    in Spoken Dialog", 2020), `channel_transformer`. A row may have no item.
    """

    reads_items = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        over: Annotated[Connector, Between("in_dim", "out_dim")],
        item: Annotated[Connector, Between("in_dim", "in_dim")] | None = None,
    ) -> None:
        super().__init__(in_dim, out_dim)
        self.item, self.over = item, over
        self.hidden_layers = () if item is None else item.hidden_layers
        if over.hidden_layers or over.reads_items or (item is not None and item.reads_items):
            raise ValueError("bag: `over` reads no hidden layers, and neither part is another bag")

    def forward(self, features: Features, items: Tensor | None = None) -> Features:
        """`[N, T, in_dim]` of the items of all rows, items `[B]` on the CPU, their number in each
        row -> the features of `over`, of B rows. Without items each row is a bag of one."""
        if self.item is not None and len(features.mask):
            features = self.item(features)
        if items is None:
            items = torch.ones(len(features.mask), dtype=torch.long)
        else:
            features = features.replace(hidden_states=())
        output: Features = self.over(group(features, items))
        return output


def group(features: Features, items: Tensor) -> Features:
    """Return the tokens of each row's items on a grid `(M, *grid)`, or `(M,)` of items of one
    token.

    features: of all items, `[N, T, D]`. items: `[B]` their number in each row, on the CPU.
    """
    most, first = max(1, int(items.max()) if len(items) else 0), items.cumsum(0) - items
    place = torch.arange(most)
    real = place < items[:, None]  # [B, M]
    tokens, mask = features.tokens, features.mask
    if not len(mask):
        count = max(1, mask.shape[1])
        tokens, mask = tokens.new_zeros(1, count, tokens.shape[-1]), mask.new_zeros(1, count)
    index = torch.where(real, first[:, None] + place, 0).to(tokens.device)
    mask = mask[index] & real[..., None].to(mask.device)  # [B, M, T]
    tokens = tokens[index].masked_fill(~mask[..., None], 0)
    inner = features.grid or tuple(mask.shape[2:])
    return Features(
        tokens.flatten(1, 2),
        mask.flatten(1, 2),
        grid=(most, *inner) if mask.shape[2] > 1 else (most,),
        hidden_states=features.hidden_states,
    )
