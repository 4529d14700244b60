"""Poolers into a vocabulary: learned sparse vectors, and dense vectors with a lexical part.

Legend: `B` batch, `T` tokens, `D` width, `V` entries of a vocabulary.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modalities.base import Features, PositiveInt
from .base import Connector
from .layout import linear_if_needed, mask_tokens, pooled_features


class Lexical(Connector):
    """A vector over a vocabulary, `w_v = max_i log(1 + relu(l_iv))` over the tokens i.

    SPLADE (Formal et al., 2021) for text: `encoder: {lm_head: true, output: logits}`, whose tokens
    are logits already; any other encoder gets a linear map to the vocabulary's size, as pictures in
    VDR (Zhou et al., 2022). activation: `log_relu`, or VDR's `elu`, `elu(l) + 1`. pool: over the
    tokens. top_k: only the largest k entries remain; a text of `elu` is sparse by this alone.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        activation: Literal["log_relu", "elu"] = "log_relu",
        pool: Literal["max", "sum"] = "max",
        top_k: PositiveInt | None = None,
    ) -> None:
        super().__init__(in_dim, out_dim)
        if top_k is not None and not 0 < top_k <= out_dim:
            raise ValueError(f"lexical: top_k {top_k}, expected 1 to {out_dim}, the vector's width")
        self.activation, self.pool, self.top_k = activation, pool, top_k
        self.map = linear_if_needed(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> pooled [B, out_dim]`, never negative; zeros for a sample without
        tokens."""
        logits = self.map(mask_tokens(features.tokens, features.mask))
        weights = F.elu(logits) + 1 if self.activation == "elu" else logits.relu().log1p()
        weights = mask_tokens(weights, features.mask)
        vector = weights.amax(1) if self.pool == "max" else weights.sum(1)
        return pooled_features(features, vector if self.top_k is None else keep(vector, self.top_k))


def keep(vectors: Tensor, count: int) -> Tensor:
    """Return vectors `[B, V]` with zeros in place of all but the largest entries of each."""
    values, places = vectors.topk(count, dim=-1)
    return torch.zeros_like(vectors).scatter(-1, places, values)


class Aggregate(Connector):
    """A dense vector of two parts: a projection of the pooled vector, and the tokens' lexical
    weights, aggregated to `lexical_dim` (Lin et al., "Aggretriever", 2022).

    Each token's softmax over a vocabulary of `vocabulary` entries is weighted by a learned scalar,
    and the largest weight of each entry is kept. The entries are cut into slices of twice
    `lexical_dim`, of which the largest are taken; of each pair the larger stays, the second one
    with a minus. The dot product of two vectors is the sum of the parts' (`similarity: dot`).
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        lexical_dim: PositiveInt,
        vocabulary: PositiveInt,
    ) -> None:
        super().__init__(in_dim, out_dim)
        if not 0 < lexical_dim < out_dim:
            raise ValueError(
                f"aggregate: lexical_dim {lexical_dim}, expected 1 to {out_dim - 1} of the "
                f"vector's {out_dim}"
            )
        if vocabulary < 2 * lexical_dim:
            raise ValueError(
                f"aggregate: vocabulary {vocabulary}, expected {2 * lexical_dim} or more, a slice "
                "of twice lexical_dim"
            )
        self.lexical_dim = lexical_dim
        self.dense = nn.Linear(in_dim, out_dim - lexical_dim)
        self.vocabulary = nn.Linear(in_dim, vocabulary)
        self.weight = nn.Linear(in_dim, 1)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> pooled [B, out_dim]`."""
        tokens = mask_tokens(features.tokens, features.mask)
        weights = self.vocabulary(tokens).softmax(-1) * self.weight(tokens).relu()
        lexical = aggregate(mask_tokens(weights, features.mask).amax(1), self.lexical_dim)
        pooled = features.replace(tokens=tokens).pool()
        return pooled_features(features, torch.cat([self.dense(pooled), lexical], -1))


def aggregate(weights: Tensor, width: int) -> Tensor:
    """Return `[B, width]` of weights `[B, V]`: the maxima over slices of twice the width, then of
    each pair the larger one, with a minus if it is the second."""
    padded = F.pad(weights, (0, -weights.shape[-1] % (2 * width)))
    pairs = padded.unflatten(-1, (-1, 2 * width)).amax(-2).unflatten(-1, (width, 2))
    first, second = pairs.unbind(-1)
    return torch.where(first >= second, first, -second)
