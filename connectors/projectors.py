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

from torch import Tensor, nn

from ..modalities.base import Features, PositiveInt
from .base import Connector
from .layout import at_least, mask_tokens

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class _Projector(Connector):
    """`map`: `[..., in_dim] -> [..., out_dim]`, and `whole`, the same for the vector or None; built
    by the subclass."""

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
