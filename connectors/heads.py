"""Heads on a frozen encoder: they end in `pooled [B, out_dim]`; `out_dim` comes from the task.

Legend: `B` batch, `T` tokens, `D` width; of codebooks `H` heads, `M` keys of a head, `d` width of a
key.
"""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modalities.base import Count, Features, Fraction, PositiveInt
from .base import Connector
from .layout import additive, at_least, mask_tokens, pooled_features, sincos, split_evenly


class LinearHead(Connector):
    """A linear probe on `features.vector()`: the pooled vector, else the mean of the tokens."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.map = nn.Linear(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> pooled [B, out_dim]`."""
        return pooled_features(features, self.map(vector(features)))


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
        return pooled_features(features, self.map(vector(features)))


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


class KeyValues(Connector):
    """The mean over heads of the value at the key nearest to the vector's projection (Träuble et
    al., "Discrete Key-Value Bottleneck", 2022).

    The projections are random and constant. Keys follow the training rows' projections by a moving
    average, for the first `key_steps` forwards, in which no value learns; then they are constant
    too. Only the values of keys that a batch meets are changed by a step, with any optimizer: what
    later rows teach leaves the values of earlier ones alone. The encoder must be frozen, since no
    gradient passes the choice of a key.

    heads: number of codebooks. keys: of each. key_dim: width of a key. key_decay: of the moving
    average. With several processes the keys follow the rows of the first.
    """

    selects_tokens = True
    lazy_parameters = ("values",)

    keys: Tensor
    sums: Tensor
    counts: Tensor
    projection: Tensor
    seen: Tensor

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        heads: PositiveInt = 64,
        keys: PositiveInt = 512,
        key_dim: PositiveInt = 8,
        key_steps: Count = 100,
        key_decay: Fraction = 0.95,
    ) -> None:
        super().__init__(in_dim, out_dim)
        self.key_steps, self.key_decay = key_steps, key_decay
        self.register_buffer("projection", torch.randn(heads, in_dim, key_dim) * in_dim**-0.5)
        self.register_buffer("keys", torch.randn(heads, keys, key_dim))
        self.register_buffer("sums", torch.zeros(heads, keys, key_dim))
        self.register_buffer("counts", torch.zeros(heads, keys))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.values = nn.Parameter(torch.zeros(heads, keys, out_dim))
        self._constant = False

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> pooled [B, out_dim]`."""
        vectors = vector(features)
        if self.training and vectors.requires_grad and not vectors.is_meta:
            raise ValueError(
                "key_values: no gradient passes the choice of a key, and the encoder trains; set "
                "freeze: true in it"
            )
        with torch.no_grad(), _full_precision(vectors):
            parts = torch.einsum("bd,hdk->hbk", vectors.float(), self.projection.float())
            follows = self._follows(parts)
            if follows:
                self._update(parts)
            nearest = torch.cdist(parts, self.keys.float()).argmin(-1)  # [H, B]
        heads = torch.arange(len(nearest), device=nearest.device)[:, None]
        output = self.values[heads, nearest].mean(0)
        return pooled_features(features, output * 0 if follows else output)

    def _follows(self, parts: Tensor) -> bool:
        """Return whether the keys still move."""
        if not self.training or self._constant or parts.is_meta or not parts.shape[1]:
            return False
        self._constant = int(self.seen) >= self.key_steps
        return not self._constant

    def _update(self, parts: Tensor) -> None:
        """Move the keys to the mean of the projections `[H, B, d]` that were nearest to them; the
        first ones begin at projections of that batch."""
        heads, rows = parts.shape[:2]
        if not int(self.seen):
            chosen = torch.randint(rows, self.keys.shape[:2], device=parts.device)
            start = parts.gather(1, chosen[..., None].expand_as(self.keys))
            noise = torch.randn_like(start) * parts.std(1, keepdim=True, correction=0) * 0.1
            self.keys.copy_(start + noise)
        nearest = torch.cdist(parts, self.keys.float()).argmin(-1)
        hits = torch.zeros(heads, self.keys.shape[1], device=parts.device)
        hits.scatter_add_(1, nearest, torch.ones_like(parts[..., 0]))
        total = torch.zeros_like(self.sums, dtype=torch.float32)
        total.scatter_add_(1, nearest[..., None].expand_as(parts), parts)
        self.counts.lerp_(hits.to(self.counts), 1 - self.key_decay)
        self.sums.lerp_(total.to(self.sums), 1 - self.key_decay)
        means = self.sums / self.counts.clamp(min=1e-6)[..., None]
        self.keys.copy_(torch.where(self.counts[..., None] > 1e-6, means, self.keys))
        self.seen += 1


def _full_precision(like: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context without autocast: the nearest key depends on small differences."""
    if like.is_meta:
        return contextlib.nullcontext()
    return torch.autocast(like.device.type, enabled=False)


def vector(features: Features) -> Tensor:
    """Return `[B, D]` from masked tokens: padding must not affect the mean."""
    if features.pooled is not None:  # masking copies every token
        return features.pooled
    return features.replace(tokens=mask_tokens(features.tokens, features.mask)).pool()
