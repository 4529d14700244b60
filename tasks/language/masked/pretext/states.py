"""Decoders that read the states of all positions and predict the masked tokens.

`condenser`: Gao and Callan 2021, late vector and early tokens. `decoder`: blocks after the encoder
(DrBERT, 2024; with `embeddings` like DeBERTa's enhanced mask decoder). `visible`: Meng et al. 2023
(MAE-LM), mask tokens in the decoder alone.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from .....modalities.base import PositiveInt
from ..text import positions_of
from .base import Encoded, Losses, Pretext, token_losses
from .blocks import Block, Positions


class StateDecoder(Pretext):
    """layers: fresh blocks. heads: of attention."""

    def __init__(self, *, layers: PositiveInt = 2, heads: PositiveInt = 4) -> None:
        super().__init__()
        self.layers, self.heads = layers, heads
        self.blocks, self.norm = nn.ModuleList(), nn.LayerNorm(0)

    def build(self, dim: int) -> None:
        self.blocks = nn.ModuleList(Block(dim, self.heads) for _ in range(self.layers))
        self.norm = nn.LayerNorm(dim)

    def losses(self, encoded: Encoded) -> Losses:
        """Return the losses of the masked tokens."""
        queries, keys = self.inputs(encoded)
        visible = encoded.text.mask[:, None]
        for block in self.blocks:
            queries = block(queries, queries if keys is None else keys, visible)
        positions = positions_of(encoded.chosen)
        return token_losses(encoded.encoder, self.norm(queries), encoded.text.ids, positions)[0]

    def inputs(self, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
        """Return queries `[B, L, D]`, and keys; None if the queries attend to each other."""
        raise NotImplementedError


class Condenser(StateDecoder):
    """Masked tokens from the last layer's vector and an early layer's tokens, so that the vector
    has to carry what the early layers lack. early: that layer; -1, the last, is the ablation."""

    def __init__(
        self, *, early: Annotated[int, Ge(-1)], layers: PositiveInt = 2, heads: PositiveInt = 4
    ) -> None:
        super().__init__(layers=layers, heads=heads)
        self.needs_layers = (early,)

    def inputs(self, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
        (early,) = encoded.features.hidden_states
        return torch.cat([encoded.vector[:, None], early.tokens[:, 1:]], 1), None


class RefinedDecoder(StateDecoder):
    """Masked tokens from blocks after the encoder. feed: `states` alone, with `positions` added
    again, or the input's `embeddings` as queries of the states. max_length: positions of it."""

    def __init__(
        self,
        *,
        feed: Literal["states", "positions", "embeddings"] = "states",
        layers: PositiveInt = 2,
        heads: PositiveInt = 4,
        max_length: PositiveInt = 512,
    ) -> None:
        super().__init__(layers=layers, heads=heads)
        self.feed, self.max_length = feed, max_length

    def build(self, dim: int) -> None:
        super().build(dim)
        self.positions = None if self.feed == "states" else Positions(self.max_length, dim)

    def inputs(self, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
        states = encoded.features.tokens
        if self.positions is None:
            return states, None
        places = self.positions(states.shape[1])
        if self.feed == "positions":
            return states + places, None
        return encoded.encoder.embed(encoded.corrupted) + places, states


class VisibleDecoder(StateDecoder):
    """Masked tokens from the states of the visible ones: mask tokens are kept out of the encoder
    and stand in this decoder alone. An evaluation has `effective_rank`: dimensions that hold 90 %
    of the energy of a text's states. max_length: positions of the decoder."""

    hides_masks: ClassVar[bool] = True

    def __init__(
        self,
        *,
        layers: PositiveInt = 2,
        heads: PositiveInt = 4,
        max_length: PositiveInt = 512,
    ) -> None:
        super().__init__(layers=layers, heads=heads)
        self.max_length = max_length

    def build(self, dim: int) -> None:
        super().build(dim)
        self.positions = Positions(self.max_length, dim)
        self.mask_vector = nn.Parameter(torch.randn(dim) * 0.02)

    def inputs(self, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
        states = encoded.features.tokens
        states = torch.where(encoded.chosen[..., None], self.mask_vector, states)
        return states + self.positions(states.shape[1]), None

    def measures(self, encoded: Encoded) -> dict[str, Tensor]:
        states = encoded.features.tokens.detach()
        real = encoded.text.mask & ~encoded.chosen
        ranks = [effective_rank(s[m]) for s, m in zip(states, real, strict=True)]
        return {"effective_rank": torch.tensor(ranks)}


def effective_rank(states: Tensor, energy: float = 0.9) -> float:
    """Return the number of directions that hold a share of the squared norm of states `[n, D]`
    around their mean."""
    values = torch.linalg.svdvals((states - states.mean(0)).float()).square()
    shares = values.cumsum(0) / values.sum().clamp(min=1e-12)
    return float((shares < energy).sum() + 1)
