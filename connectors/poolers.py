"""Poolers: a sequence becomes one vector, `pooled [B, out_dim]` and the only token.

Legend: `B` batch, `T` tokens, `D` width, `r` latents. If `in_dim == out_dim` the parameter-free
poolers have no parameters (an embedder's space is kept); otherwise a linear layer follows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from ..modalities.base import Features, PositiveInt
from .base import Connector
from .layout import (
    additive,
    as_sequence,
    at_least,
    linear_if_needed,
    mask_tokens,
    pooled_features,
    split_evenly,
)


class Mean(Connector):
    """The mean of the real tokens; zeros before the linear layer for a sample without any."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.map = linear_if_needed(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, 1, out_dim]`."""
        masked = features.replace(tokens=mask_tokens(features.tokens, features.mask))
        return pooled_features(features, self.map(masked.mean()))


class Max(Connector):
    """The maximum over the real tokens of each channel; zeros for a sample without any."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.map = linear_if_needed(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, 1, out_dim]`."""
        lowest = torch.finfo(features.tokens.dtype).min
        top = features.tokens.masked_fill(~features.mask.unsqueeze(-1), lowest).amax(1)
        return pooled_features(
            features, self.map(top.masked_fill(~features.mask.any(1, keepdim=True), 0))
        )


class Cls(Connector):
    """The encoder's pooled vector (e.g. a class token). Raise ValueError if it has none."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.map = linear_if_needed(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """pooled `[B, in_dim] -> [B, 1, out_dim]`."""
        if features.pooled is None:
            raise ValueError(
                "cls: the encoder returns no pooled vector (no class token); "
                "use mean, max or attention_pool"
            )
        return pooled_features(features, self.map(features.pooled))


class First(Connector):
    """The first real token; zeros before the linear layer for a sample without any."""

    selects_tokens = True

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.map = linear_if_needed(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, 1, out_dim]`."""
        place = features.mask.int().argmax(1)
        return pooled_features(features, self.map(_token_at(features, place)))


class Last(Connector):
    """The last real token, the only one of a causal model that has attended to all (E5-Mistral:
    Wang et al. 2024); zeros before the linear layer for a sample without any."""

    selects_tokens = True

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.map = linear_if_needed(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, 1, out_dim]`."""
        numbers = torch.arange(features.mask.shape[1], device=features.mask.device)
        place = (numbers * features.mask).amax(1)
        return pooled_features(features, self.map(_token_at(features, place)))


POOLS: dict[str, type[Connector]] = {
    "cls": Cls,
    "first": First,
    "last": Last,
    "max": Max,
    "mean": Mean,
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class Dense(Connector):
    """A pooled vector through linear layers, each followed by an activation: the modules `Pooling`
    and `Dense` of sentence-transformers (LaBSE: Feng et al. 2022, `pool: cls`).

    hidden: widths between the layers; without any there is one layer.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        pool: Literal["cls", "first", "last", "max", "mean"] = "mean",
        hidden: list[PositiveInt] | None = None,
        activation: Literal["identity", "gelu", "relu", "sigmoid", "silu", "tanh"] = "tanh",
    ) -> None:
        super().__init__(in_dim, out_dim)
        self.pool, self.activation_name = POOLS[pool](in_dim, in_dim), activation
        self.activation = ACTIVATIONS[activation]()
        self.selects_tokens = self.pool.selects_tokens
        widths = [in_dim, *(hidden or []), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, 1, out_dim]`."""
        pooled = self.pool(features)
        vector = pooled.tokens[:, 0]
        for layer in self.layers:
            vector = self.activation(layer(vector))
        return pooled_features(features, vector)


def _token_at(features: Features, place: Tensor) -> Tensor:
    """Return the tokens `[B, D]` at `place [B]`."""
    tokens = mask_tokens(features.tokens, features.mask)
    return tokens.gather(1, place[:, None, None].expand(-1, 1, tokens.shape[-1]))[:, 0]


class AttentionPool(Connector):
    """One learned query attends to the tokens (Set Transformer's PMA, Lee et al. 2019).

    heads: must divide in_dim.
    """

    def __init__(self, in_dim: int, out_dim: int, *, heads: PositiveInt = 8) -> None:
        super().__init__(in_dim, out_dim)
        split_evenly("attention_pool", in_dim, heads)
        self.query = nn.Parameter(torch.randn(1, in_dim) * 0.02)
        self.attention = nn.MultiheadAttention(in_dim, heads, batch_first=True)
        self.map = linear_if_needed(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, 1, out_dim]`."""
        tokens = mask_tokens(features.tokens, features.mask)
        query = self.query.expand(len(tokens), -1, -1)
        padding = additive(features.mask, query)
        read = self.attention(query, tokens, tokens, padding, need_weights=False)[0]
        return pooled_features(features, self.map(read.squeeze(1)))


class LatentAttention(Connector):
    """NV-Embed (Lee et al. 2024): the tokens are queries, `latents` learned rows keys and values.

    `O = softmax(Q K^T / sqrt(d)) V` with `K = V [r, D]` and d the width of a head, then an MLP (two
    linear layers, GELU), then the mean of the real tokens. Unlike in a perceiver the length is T
    until the mean. heads: must divide in_dim.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, latents: PositiveInt = 512, heads: PositiveInt = 8
    ) -> None:
        super().__init__(in_dim, out_dim)
        at_least("latent_attention", "latents", latents, 1)
        split_evenly("latent_attention", in_dim, heads)
        self.heads = heads
        self.latents = nn.Parameter(torch.randn(latents, in_dim) * in_dim**-0.5)
        self.mlp = nn.Sequential(nn.Linear(in_dim, in_dim), nn.GELU(), nn.Linear(in_dim, out_dim))

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, 1, out_dim]`."""
        read = self.mlp(self.attend(mask_tokens(features.tokens, features.mask)))
        masked = features.replace(tokens=mask_tokens(read, features.mask))
        return pooled_features(features, masked.mean())

    def attend(self, tokens: Tensor) -> Tensor:
        """Return `[B, T, D]`: for every token a mixture of the latents."""
        queries = tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, T, d]
        memory = self.latents.unflatten(-1, (self.heads, -1)).transpose(0, 1)  # [heads, r, d]
        memory = memory.to(queries.dtype).expand(len(tokens), -1, -1, -1)
        read = nn.functional.scaled_dot_product_attention(queries, memory, memory)
        return read.transpose(1, 2).flatten(2)


class GatedAttention(Connector):
    """Gated attention over a bag: `sum_i a_i x_i` with `a = softmax(w^T (tanh(V x) * sigmoid(U
    x)))`, in any order (Ilse et al., "Attention-based Deep Multiple Instance Learning", 2018).

    hidden: width of V and U.
    """

    def __init__(self, in_dim: int, out_dim: int, *, hidden: PositiveInt = 128) -> None:
        super().__init__(in_dim, out_dim)
        self.value, self.gate = nn.Linear(in_dim, hidden), nn.Linear(in_dim, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.map = linear_if_needed(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, 1, out_dim]`."""
        tokens = mask_tokens(features.tokens, features.mask)
        scores = self.score(self.value(tokens).tanh() * self.gate(tokens).sigmoid())[..., 0]
        shares = (scores + additive(features.mask, scores)).softmax(1)
        return pooled_features(features, self.map((shares[..., None] * tokens).sum(1)))


class Recurrent(Connector):
    """A GRU in both directions over the tokens; the vector is a linear map of its mean state.

    hidden: width of each direction.
    """

    def __init__(self, in_dim: int, out_dim: int, *, hidden: PositiveInt = 128) -> None:
        super().__init__(in_dim, out_dim)
        self.forth = nn.GRU(in_dim, hidden, batch_first=True)
        self.back = nn.GRU(in_dim, hidden, batch_first=True)
        self.map = nn.Linear(2 * hidden, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, 1, out_dim]`."""
        tokens, mask = as_sequence(features)
        # The padding lies on the right: the way back reads each row from its own last token.
        places = torch.arange(mask.shape[1], device=mask.device)
        lengths = mask.sum(1, keepdim=True)
        places = torch.where(places < lengths, lengths - 1 - places, places)[..., None]
        reverse = tokens.gather(1, places.expand_as(tokens))
        back = self.back(reverse)[0]
        back = back.gather(1, places.expand_as(back))
        states = torch.cat([self.forth(tokens)[0], back], -1)
        masked = Features(mask_tokens(states, mask), mask)
        return pooled_features(features, self.map(masked.mean()))
