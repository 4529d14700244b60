"""Refiner: tokens of a causal or of several encoders, each of which sees all others.

Ma et al., "Exploring the Role of Large Language Models in Prompt Encoding for Diffusion Models",
2024, section 3.2. Legend: `B` batch, `T` tokens, `D` width.
"""

from __future__ import annotations

from torch import nn

from ...connectors.layout import mask_tokens, split_evenly
from ...modalities.base import Features, PositiveInt


class Refiner(nn.Module):
    """`depth` layers of a bidirectional transformer. heads: must divide the width."""

    def __init__(self, dim: int, *, depth: PositiveInt = 1, heads: PositiveInt = 4) -> None:
        super().__init__()
        split_evenly("refiner", dim, heads)
        layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(dim), False)

    def forward(self, features: Features) -> Features:
        """Return `[B, T, D]` of `[B, T, D]`; a row without a real token stays zeros."""
        padding = ~(features.mask | ~features.mask.any(1, keepdim=True))
        tokens = self.layers(mask_tokens(features.tokens, features.mask), None, padding)
        return features.replace(tokens=mask_tokens(tokens, features.mask), pooled=None)
