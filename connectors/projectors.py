"""Projectors: a map of each token; the length is kept.

`Linear`: LiMBeR, Merullo et al. 2022. `MLP`: LLaVA-1.5, Liu et al. 2023 (two layers, GELU).
Legend: `B` batch, `T` tokens, `D` width.

Projectors drop `pooled`: it has the encoder's width, and the projection is not trained on it. With
`project_pooled` it has its own projection, so that a task on the pooled vector and a task on
the tokens may share a stream. `hidden_states` pass unchanged.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from ..modalities.base import Features, PositiveInt
from .base import Connector
from .layout import at_least, mask_tokens

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class _Projector(Connector):
    """`map`: `[..., in_dim] -> [..., out_dim]`, and `whole`, the same for the vector or None; built
    by the subclass."""

    causal = True
    map: nn.Module
    whole: nn.Module | None

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, T, out_dim]`, same mask and grid."""
        real = features.replace(tokens=mask_tokens(features.tokens, features.mask))
        tokens: Tensor = self.map(real.tokens)
        pooled = None if self.whole is None else self.whole(real.pool())
        return features.replace(tokens=mask_tokens(tokens, features.mask), pooled=pooled)


class Linear(_Projector):
    """A linear projection of every token. project_pooled: another one of the pooled vector."""

    def __init__(self, in_dim: int, out_dim: int, *, project_pooled: bool = False) -> None:
        super().__init__(in_dim, out_dim)
        self.map = nn.Linear(in_dim, out_dim)
        self.whole = nn.Linear(in_dim, out_dim) if project_pooled else None


class MLP(_Projector):
    """`depth` linear layers with an activation between them.

    hidden: width between the layers (default: out_dim). norm: a LayerNorm on the input.
    project_pooled: a further projection of the pooled vector.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        depth: PositiveInt = 2,
        hidden: PositiveInt | None = None,
        activation: Literal["gelu", "relu", "silu"] = "gelu",
        norm: bool = False,
        project_pooled: bool = False,
    ) -> None:
        super().__init__(in_dim, out_dim)
        at_least("mlp", "depth", depth, 1)
        widths = [in_dim, *[hidden or out_dim] * (depth - 1), out_dim]

        def make_map() -> nn.Module:
            layers: list[nn.Module] = [nn.LayerNorm(in_dim)] if norm else []
            for index, (wide, narrow) in enumerate(pairwise(widths)):
                layers += [ACTIVATIONS[activation]()] if index else []
                layers.append(nn.Linear(wide, narrow))
            return nn.Sequential(*layers)

        self.map = make_map()
        self.whole = make_map() if project_pooled else None


class WeightedLayers(Connector):
    """`sum_l softmax(w)_l h_l` over hidden layers, then a linear layer to `out_dim`.

    Peters et al., "Deep contextualized word representations" (ELMo), 2018, equation 1; for frozen
    speech encoders Yang et al., "SUPERB", 2021, section 3: the best layer for a task is often not
    the last.

    last: how many layers, counted from the last. normalize: standardize each token of each layer
    first, so that no layer dominates by its scale.
    """

    causal = True

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
