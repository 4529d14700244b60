"""Decoders that rebuild a text from its vector: what they cannot see, the vector has to hold.

Position i is predicted from the vector and from those tokens that a visibility shows it, never
from its own. `weak`: Lu et al. 2021 (SEED-Encoder), the tokens of a short window before it.
`enhanced`: Xiao et al. 2022 (RetroMAE), a random set for each position. `sections`: Li et al. 2023
(SAILER), other texts of the row, heavily masked.

Legend: `B` rows, `L` tokens, `D` width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .....modalities.base import Count, PositiveInt, Probability
from ....base import Row, Tools, VocabularyEncoder
from ..text import positions_of
from .base import Encoded, Losses, Pretext, token_losses
from .blocks import Block, Positions


class VectorDecoder(nn.Module):
    """Blocks whose queries are the vector and a position, whose keys are the vector and the
    embeddings that a position may see."""

    def __init__(self, dim: int, layers: int, heads: int, max_length: int) -> None:
        super().__init__()
        self.positions = Positions(max_length, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, encoder: VocabularyEncoder, vector: Tensor, ids: Tensor, visible: Tensor
    ) -> Tensor:
        """Return states `[B, L, D]` of vector `[B, D]`, ids `[B, L]` and visible `[B, L, L]`."""
        places, embeds = self.positions(ids.shape[1]), encoder.embed(ids)
        if embeds.shape[-1] != vector.shape[-1]:
            raise ValueError(
                f"pretext: the encoder's embeddings are {embeds.shape[-1]} wide, its states "
                f"{vector.shape[-1]}; take an encoder whose two widths are one"
            )
        states = vector[:, None] + places
        keys = torch.cat([vector[:, None], embeds + places], 1)
        seen = torch.cat([torch.ones_like(visible[..., :1]), visible], -1)
        for block in self.blocks:
            states = block(states, keys, seen)
        normed: Tensor = self.norm(states)
        return normed


class FromVector(Pretext):
    """layers, heads: of the decoder. max_length: its positions."""

    def __init__(
        self, *, layers: PositiveInt = 1, heads: PositiveInt = 4, max_length: PositiveInt = 512
    ) -> None:
        super().__init__()
        self.layers, self.heads, self.max_length = layers, heads, max_length

    def build(self, dim: int) -> None:
        self.decoder = VectorDecoder(dim, self.layers, self.heads, self.max_length)

    def visible(self, encoded: Encoded) -> Tensor:
        """Return `[B, L, L]` bool: which tokens each prediction sees."""
        raise NotImplementedError

    def losses(self, encoded: Encoded) -> Losses:
        """Return the losses of all ordinary tokens."""
        text, encoder = encoded.text, encoded.encoder
        visible = self.visible(encoded) & text.mask[:, None]
        hidden = self.decoder(encoder, encoded.vector, text.ids, visible)
        return token_losses(encoder, hidden, text.ids, positions_of(~text.special))[0]


class Weak(FromVector):
    """All tokens from the vector and the `window` tokens before each; 0: the vector alone."""

    def __init__(
        self,
        *,
        window: Count = 2,
        layers: PositiveInt = 3,
        heads: PositiveInt = 4,
        max_length: PositiveInt = 512,
    ) -> None:
        super().__init__(layers=layers, heads=heads, max_length=max_length)
        self.window = window

    def visible(self, encoded: Encoded) -> Tensor:
        places = torch.arange(encoded.text.ids.shape[1], device=encoded.text.ids.device)
        back = places[:, None] - places
        return ((back >= 1) & (back <= self.window)).expand(len(encoded.text.ids), -1, -1)


class Enhanced(FromVector):
    """All tokens from the vector and, for each position, a random set of the other tokens.
    visible: share of them."""

    def __init__(
        self,
        *,
        visible: Probability = 0.5,
        layers: PositiveInt = 1,
        heads: PositiveInt = 4,
        max_length: PositiveInt = 512,
    ) -> None:
        super().__init__(layers=layers, heads=heads, max_length=max_length)
        self.share = visible

    def visible(self, encoded: Encoded) -> Tensor:
        count, length = encoded.text.ids.shape
        draws = torch.rand(count, length, length, generator=encoded.generator)
        seen = (draws < self.share) & ~torch.eye(length, dtype=torch.bool)
        return seen.to(encoded.text.ids.device)


class Sections(Pretext):
    """Other texts of the row from the text's vector, each by its own decoder; a row whose cell is
    null or empty skips it. columns: of the texts, with the share of their tokens that is hidden
    and predicted, `{reasoning: 0.45}`."""

    def __init__(
        self,
        *,
        columns: dict[str, Probability],
        layers: PositiveInt = 1,
        heads: PositiveInt = 4,
        max_length: PositiveInt = 512,
    ) -> None:
        super().__init__()
        if not columns:
            raise ValueError("columns: is empty, expected a column of texts or more")
        self.hidden_share, self.max_length = dict(columns), max_length
        self.layers, self.heads = layers, heads
        self.decoders = nn.ModuleDict()

    def build(self, dim: int) -> None:
        self.decoders = nn.ModuleDict(
            {
                name: VectorDecoder(dim, self.layers, self.heads, self.max_length)
                for name in self.hidden_share
            }
        )

    def columns(self) -> tuple[str, ...]:
        return tuple(self.hidden_share)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> dict[str, Tensor]:
        (tokenizer,) = tools.stream_tokenizers.values()
        texts = {name: row.get(name) or "" for name in self.hidden_share}
        ids = {name: tokenizer.encode(text)[: self.max_length] for name, text in texts.items()}
        return {n: torch.tensor(values, dtype=torch.long) for n, values in ids.items()}

    def losses(self, encoded: Encoded) -> Losses:
        parts = [self._section(name, encoded) for name in self.hidden_share]
        return Losses(torch.cat([p.values for p in parts]), torch.cat([p.rows for p in parts]))

    def _section(self, name: str, encoded: Encoded) -> Losses:
        ids, mask = encoded.labels[f"sections.{name}"]
        draws = torch.rand(ids.shape, generator=encoded.generator).to(ids.device)
        hidden = (draws < self.hidden_share[name]) & mask
        if not ids.shape[1]:
            empty = encoded.vector.new_zeros(0)
            return Losses(empty, empty.long())
        visible = (mask & ~hidden)[:, None].expand(-1, ids.shape[1], -1)
        states = self.decoders[name](encoded.encoder, encoded.vector, ids, visible)
        return token_losses(encoded.encoder, states, ids, positions_of(hidden))[0]
