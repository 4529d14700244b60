"""Learned queries that detect things among the tokens: a head with one output token a query.

Carion et al., "End-to-End Object Detection with Transformers" (DETR), 2020, section 3.2; without
its own encoder. A query's box is predicted relative to the mean position of the tokens under its
attention (as the anchors of Meng et al., "Conditional DETR", 2021, but from the tokens): with few
samples, a position is found by attention long before it could be regressed.

Legend: `B` batch, `T` tokens, `Q` queries, `W` width of the decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..modalities.base import Count, Features, Fraction, PositiveInt
from .base import Connector
from .layout import additive, at_least, mask_tokens, sincos, split_evenly


class Detr(Connector):
    """`queries` learned queries attend to each other and to the tokens, `depth` times.

    Tokens of a grid of `n` axes get fixed sine-cosine positions, at any size, and the numbers 1 to
    n of a query are logits of a position as a fraction of that grid. width: of the decoder, small
    enough for a head of a frozen encoder. heads: must divide it.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        queries: PositiveInt = 8,
        width: PositiveInt = 64,
        depth: Count = 2,
        heads: PositiveInt = 4,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__(in_dim, out_dim)
        for option, value in (("queries", queries), ("depth", depth)):
            at_least("detr", option, value, 1)
        split_evenly("detr", width, heads)
        self.read = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, width))
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.5)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.point = nn.Linear(width, width)
        self.map = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, out_dim)
        )

    def forward(self, features: Features) -> Features:
        """Return `[B, Q, out_dim]` of `[B, T, in_dim]`, without a grid; every query is real."""
        content: Tensor = self.read(mask_tokens(features.tokens, features.mask))  # [B, T, W]
        memory, grid = content, features.grid
        if grid is not None:
            memory = memory + sincos(grid, memory.shape[-1], memory)
        hide = additive(features.mask, memory)
        hidden = self.queries.to(memory.dtype).expand(len(memory), -1, -1)
        for layer in self.layers:
            hidden = layer(hidden, memory, memory_key_padding_mask=hide)
        output = self.map(hidden)
        if grid is not None and len(grid) < self.out_dim:
            looks = self.point(hidden) @ content.mT + hide[:, None]  # [B, Q, T]
            position = looks.float().softmax(-1) @ _centres(features, grid).float()
            offset = position.logit(eps=1e-3).to(output.dtype)  # [B, Q, n]
            output = output + nn.functional.pad(offset, (1, self.out_dim - 1 - len(grid)))
        return Features.dense(output).replace(
            affine=features.affine, hidden_states=features.hidden_states
        )


def _centres(features: Features, grid: tuple[int, ...]) -> Tensor:
    """Return `[T, n]`, the centre of each token as a fraction of the grid."""
    axes = [torch.arange(size, device=features.mask.device) + 0.5 for size in grid]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    return index / features.extents()[:, None]
