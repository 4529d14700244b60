"""A bidirectional transformer over the steps of a trajectory.

The encoder of actions in a conditional VAE (Zhao et al., "Learning Fine-Grained Bimanual
Manipulation with Low-Cost Hardware" (ACT), 2023) and in the retrieval of motions by text.

Legend: `B` batch, `T` steps (tokens), `dof` joints, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...base import Count, Features, LayerHook, PositiveInt
from ..normalizer import Normalizer
from .step_encoder import StepEncoder, sinusoids


class TrajectoryEncoder(StepEncoder):
    """Tokens `[B, T, D]` of a transformer with full attention; `pooled` is a learned summary
    token's output. `token_mask` replaces steps by a learned token.

    depth: blocks. heads: of the attention; they divide dim.
    """

    supports = frozenset({"hidden_states", "layer_hooks", "token_mask"})

    def __init__(
        self,
        *,
        normalizer: Normalizer,
        dim: PositiveInt = 128,
        depth: Count = 2,
        heads: PositiveInt = 4,
    ) -> None:
        super().__init__(normalizer, dim)
        if depth < 1 or heads < 1 or dim % heads:
            raise ValueError(
                f"heads: found {heads} heads, {depth} blocks and dim {dim}; expected at least one "
                "of each, and heads that divide dim"
            )
        self.values = nn.Linear(normalizer.dof, dim)
        self.summary = nn.Parameter(torch.zeros(dim))
        self.mask_token = nn.Parameter(torch.zeros(dim))
        for token in (self.summary, self.mask_token):
            nn.init.trunc_normal_(token, std=0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def forward(
        self,
        values: Tensor,
        mask: Tensor,
        hidden_states: Sequence[int] = (),
        token_mask: Tensor | None = None,
        layer_hooks: Mapping[int, LayerHook] | None = None,
    ) -> Features:
        """values `[B, T, dof]` normalized, mask `[B, T]`; hidden_states: layers, from 0 or from the
        end (-1)."""
        requested, changed = [self._layer(i) for i in hidden_states], self._hooks(layer_hooks)
        x = self._embed(values, token_mask)  # [B, 1 + T, D]: the summary first
        attended = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
        hidden: dict[int, Features] = {}
        for number, block in enumerate(self.layers):
            x = block(x, src_key_padding_mask=~attended)
            if number in changed:
                x = torch.cat([x[:, :1], changed[number](x[:, 1:], mask)], dim=1)
            if number in requested:
                hidden[number] = self._features(x, mask)
        return self._features(x, mask).replace(hidden_states=tuple(hidden[i] for i in requested))

    def _embed(self, values: Tensor, token_mask: Tensor | None) -> Tensor:
        tokens = self.values(values)
        if token_mask is not None:
            mask_token = self.mask_token.to(tokens.dtype)
            tokens = torch.where(token_mask.unsqueeze(-1), mask_token, tokens)
        steps = torch.arange(values.shape[1], device=values.device)
        tokens = tokens + sinusoids(steps, self.dim).to(tokens.dtype)
        summary = self.summary.to(tokens.dtype).expand(len(values), 1, -1)
        return torch.cat([summary, tokens], dim=1)

    def _features(self, x: Tensor, mask: Tensor) -> Features:
        x = self.norm(x)
        tokens = x[:, 1:].masked_fill(~mask.unsqueeze(-1), 0)
        return Features(tokens, mask, grid=mask.shape[1:], pooled=x[:, 0])

    def _hooks(self, layer_hooks: Mapping[int, LayerHook] | None) -> dict[int, LayerHook]:
        return {self._layer(i): hook for i, hook in (layer_hooks or {}).items()}

    def _layer(self, number: int) -> int:
        depth = len(self.layers)
        if not -depth <= number < depth:
            raise ValueError(f"trajectory: there is no layer {number}; it has {depth}")
        return number % depth
