"""A learned weighted sum of hidden layers.

Peters et al., "Deep contextualized word representations" (ELMo), 2018, equation 1; for frozen
speech encoders Yang et al., "SUPERB", 2021, section 3: the best layer for a task is often not the
last.

Legend: `B` batch, `T` tokens, `D` width, `L` layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..modalities.base import Features, PositiveInt
from .base import Connector
from .layout import at_least, mask_tokens


class WeightedLayers(Connector):
    """`sum_l softmax(w)_l h_l` over hidden layers, then a linear layer to `out_dim`.

    last: how many layers, counted from the last. normalize: standardize each token of each layer
    first, so that no layer dominates by its scale.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, last: PositiveInt = 4, normalize: bool = False
    ) -> None:
        super().__init__(in_dim, out_dim)
        at_least("weighted_layers", "last", last, 1)
        self.hidden_layers = tuple(range(-last, 0))
        self.normalize = normalize
        self.weights = nn.Parameter(torch.zeros(last))
        self.map = nn.Linear(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim]` in each of `hidden_layers` -> `[B, T, out_dim]`."""
        self._check(features)
        shares = self.weights.softmax(0)
        total = features.tokens.new_zeros(())
        for share, layer in zip(shares, features.hidden_states, strict=True):
            total = total + share * self._normalized(layer.tokens, features.mask)
        tokens = mask_tokens(self.map(total), features.mask)
        return features.replace(tokens=tokens, pooled=None, hidden_states=())

    def _normalized(self, tokens: Tensor, mask: Tensor) -> Tensor:
        tokens = mask_tokens(tokens, mask)
        return nn.functional.layer_norm(tokens, tokens.shape[-1:]) if self.normalize else tokens

    def _check(self, features: Features) -> None:
        expected = (*features.tokens.shape[:2], self.in_dim)
        shapes = [tuple(layer.tokens.shape) for layer in features.hidden_states]
        if len(shapes) != len(self.hidden_layers):
            raise ValueError(
                f"weighted_layers: got {len(shapes)} hidden layers, expected "
                f"{len(self.hidden_layers)}; an encoder that supports `hidden_states` "
                "returns them, whole and not in pieces"
            )
        for layer, shape in zip(self.hidden_layers, shapes, strict=True):
            if shape != expected:
                raise ValueError(
                    f"weighted_layers: layer {layer} is {shape}, the encoder's tokens {expected}; "
                    f"lower last from {len(self.hidden_layers)} to layers of one shape"
                )
