"""A channel of characters beside the pieces of a text encoder.

Ma et al., "CharBERT: Character-aware Pre-trained Language Model", 2020: a recurrent layer reads the
characters of the whole text in both directions; its states at the first and last character of a
piece are the piece's second vector, and after each layer both vectors learn of each other.

Legend: `B` batch, `L` pieces, `D` width, `V` vocabulary, `C` most characters of a piece, `N`
characters of the longest text.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ...base import Encoder, Features, LayerHook, PositiveInt, Sample, Tokenizer

MAX_BYTES = 24
"""Of the spelling of a piece; what is longer is cut."""


class CharacterChannel(Encoder):
    """encoder: a text encoder with layers, `{type: transformers, ...}`; with `lm_head: true` it is
    trained by masked words as without the channel. char_dim: width of a character (a byte of
    UTF-8). kernel: pieces that the fusion of both channels sees, an odd number.

    A new channel leaves the encoder's states as they are. Special tokens have no characters, so
    that a masked piece is spelt by none.
    """

    def __init__(
        self,
        *,
        encoder: Annotated[Encoder, "text"],
        char_dim: PositiveInt = 32,
        kernel: PositiveInt = 3,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel: found {kernel}, expected an odd number")
        tokenizer: Any = getattr(encoder, "tokenizer", None)
        if "layer_hooks" not in encoder.supports or tokenizer is None:
            raise ValueError("encoder: has no layers to join; use type: transformers or causal_lm")
        self.encoder, self.processor, self.dim = encoder, encoder.processor, encoder.dim
        self.batch_invariant = encoder.batch_invariant
        self.supports = encoder.supports
        self.tokenizer: Tokenizer = tokenizer
        self.letters = nn.Embedding(257, char_dim)  # 0: none
        self.reader = nn.GRU(char_dim, char_dim, batch_first=True, bidirectional=True)
        self.project = nn.Linear(4 * char_dim, self.dim)
        count = len(encoder.blocks())
        self.fusions = nn.ModuleList(Fusion(self.dim, kernel, i == count - 1) for i in range(count))

    def blocks(self) -> Sequence[nn.Module]:
        return self.encoder.blocks()

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        return self.encoder.collate(samples)

    def padding_samples(self) -> Sequence[Sample]:
        return self.encoder.padding_samples()

    def embed(self, ids: Tensor) -> Tensor:
        """Return embeddings `[..., L, E]` of ids `[..., L]`, without their characters."""
        inner: Any = self.encoder
        embedded: Tensor = inner.embed(ids)
        return embedded

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return logits `[..., V]` of hidden `[..., D]`, or `[..., len(ids)]` of some ids."""
        inner: Any = self.encoder
        scores: Tensor = inner.logits(hidden, ids)
        return scores

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        layer_hooks: Mapping[int, LayerHook] | None = None,
        **options: Any,
    ) -> Features:
        """Return tokens `[B, L, D]` of ids and mask `[B, L]`; the characters are those of the ids,
        also beside `inputs_embeds`. Options: those of the encoder's own forward."""
        characters = self.characters(ids, mask)
        count = len(self.fusions)
        for layer in layer_hooks or ():
            if not -count <= layer < count:
                raise ValueError(f"layer_hooks: there is no layer {layer}; it has {count}")
        asked = {layer % count: hook for layer, hook in (layer_hooks or {}).items()}

        def join(layer: int, tokens: Tensor, real: Tensor) -> Tensor:
            nonlocal characters
            tokens, characters = self.fusions[layer](tokens, characters, mask)
            return asked[layer](tokens, real) if layer in asked else tokens

        hooks = {layer: functools.partial(join, layer) for layer in range(count)}
        features: Features = self.encoder(ids=ids, mask=mask, layer_hooks=hooks, **options)
        return features

    def characters(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the second vectors `[B, L, D]` of the pieces, zeros of one without characters."""
        if ids.is_meta:
            states = self.letters(ids)
            states = self.project(torch.cat([self.reader(states)[0]] * 2, -1))
            return torch.as_tensor(states)
        table = torch.from_numpy(self.spellings).to(ids.device)
        spelt = table[ids.clamp(max=len(table) - 1)].long() * mask[..., None]  # [B, L, C]
        counts = (spelt > 0).sum(-1)
        lengths = counts.sum(1).clamp(min=1)
        flat = spelt.flatten(1)
        order = (flat == 0).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(lengths.max())]
        letters = pack_padded_sequence(
            self.letters(flat.gather(1, order)), lengths.cpu(), True, enforce_sorted=False
        )
        read = pad_packed_sequence(self.reader(letters)[0], True)[0]  # [B, N, 2 char_dim]
        stops = counts.cumsum(1)
        ends = [(stops - counts).clamp(max=read.shape[1] - 1), (stops - 1).clamp(min=0)]
        width = read.shape[-1]
        both = [read.gather(1, end[..., None].expand(-1, -1, width)) for end in ends]
        states = self.project(torch.cat(both, -1))
        return torch.as_tensor(states * (counts > 0)[..., None])

    @functools.cached_property
    def spellings(self) -> np.ndarray:
        """`[V, C]` uint8, the bytes of each piece plus 1 (modulo 256), 0 behind its end; a piece of
        less than a character has those of U+FFFD."""
        return spellings(self.tokenizer)


class Fusion(nn.Module):
    """Both vectors of a piece and of its neighbours, mixed and added to each. At first nothing is
    added to the piece's own. last: nothing reads the characters afterwards."""

    def __init__(self, dim: int, kernel: int, last: bool) -> None:
        super().__init__()
        self.token_in, self.char_in = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.mix = nn.Conv1d(2 * dim, dim, kernel, padding=kernel // 2)
        self.token_out = nn.Linear(dim, dim)
        self.char_out = None if last else nn.Sequential(nn.Linear(dim, dim), nn.GELU())
        self.norm = nn.Identity() if last else nn.LayerNorm(dim)
        nn.init.zeros_(self.token_out.weight)
        nn.init.zeros_(self.token_out.bias)

    def forward(self, tokens: Tensor, characters: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return both `[B, L, D]`; mask `[B, L]`."""
        both = torch.cat([self.token_in(tokens), self.char_in(characters)], -1) * mask[..., None]
        mixed = torch.tanh(self.mix(both.transpose(1, 2)).transpose(1, 2))
        if self.char_out is not None:
            characters = self.norm(characters + self.char_out(mixed))
        return tokens + self.token_out(mixed), characters


def spellings(tokenizer: Tokenizer) -> np.ndarray:
    """Return `[V, C]` uint8 of the pieces of a tokenizer, see `CharacterChannel.spellings`."""
    known = (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)
    special = {*known, getattr(tokenizer, "mask_id", None)}
    before = tokenizer.encode("a")[:1]  # a WordPiece is spelt with ## at the beginning of a text
    start = tokenizer.decode(before)
    rows: list[bytes] = []
    for number in range(tokenizer.size):
        text = tokenizer.decode([*before, number])
        text = text[len(start) :] if text.startswith(start) else tokenizer.decode([number])
        rows.append(b"" if number in special else text.encode("utf-8")[:MAX_BYTES])
    table = np.zeros((len(rows), max(1, *(len(row) for row in rows))), np.uint8)
    for number, row in enumerate(rows):
        # UTF-8 has no byte 255, so that no byte becomes the 0 of "none".
        table[number, : len(row)] = np.frombuffer(row, np.uint8) + 1
    return table
