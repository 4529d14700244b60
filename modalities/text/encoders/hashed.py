"""Words as hashed features in place of a vocabulary (pQRNN, arXiv 2101.08890; PRADO, 2019).

A word's features are numbers of -1, 0 and 1 that a hash draws from its letters: there is no table
of words, no word is unknown, and a word has the same features on every machine.

Legend: `B` batch, `W` words, `F` features, `D` width.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...base import Encoder, Features, PositiveInt, Processor, ReadError, Sample
from ...text_processor import CutCounter

WORD = re.compile(r"\w+|[^\w\s]")


def hashed_features(word: str, count: int) -> np.ndarray:
    """Return `[count]` int8 of -1, 0 (half of them) and 1: two bits of BLAKE2b for each."""
    blocks = -(-count * 2 // 512)
    data = word.encode("utf-8")
    digest = b"".join(
        hashlib.blake2b(data, salt=block.to_bytes(8, "little")).digest() for block in range(blocks)
    )
    bits = np.unpackbits(np.frombuffer(digest, np.uint8))[: 2 * count].reshape(count, 2)
    return bits[:, 0].astype(np.int8) - bits[:, 1].astype(np.int8)


class HashProcessor(Processor):
    """`{"words": int8 [W, F]}`; a longer text is cut, and counted."""

    def __init__(self, features: int, max_words: int, lower: bool) -> None:
        self.features, self.max_words, self.lower = features, max_words, lower
        self.cut = CutCounter()

    def prepare(self, raw: str) -> Sample:
        words = WORD.findall(raw.lower() if self.lower else raw)
        if not words:
            raise ReadError(raw, "it has no word", "a text with visible characters")
        if len(words) > self.max_words:
            self.cut.add(f"max_words {self.max_words}", raw)
        rows = [hashed_features(word, self.features) for word in words[: self.max_words]]
        return {"words": torch.from_numpy(np.stack(rows))}

    def settings(self) -> dict[str, object]:
        return {"features": self.features, "max_words": self.max_words, "lower": self.lower}


class HashedText(Encoder):
    """Hashed features, a bottleneck, and gated recurrent layers in both directions.

    features: of a word. dim: of the bottleneck and of the output; even. depth: recurrent layers.
    max_words: a longer text is cut. lower: lower-case texts.
    """

    def __init__(
        self,
        *,
        features: PositiveInt = 420,
        dim: PositiveInt = 64,
        depth: PositiveInt = 2,
        max_words: PositiveInt = 256,
        lower: bool = True,
    ) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim: found {dim}, expected an even number: half for each direction")
        self.dim = dim
        self.processor = HashProcessor(features, max_words, lower)
        self.bottleneck = nn.Sequential(nn.Linear(features, dim), nn.LayerNorm(dim), nn.ReLU())
        self.layers = nn.ModuleList(
            nn.GRU(dim, dim // 2, batch_first=True, bidirectional=True) for _ in range(depth)
        )

    def blocks(self) -> Sequence[nn.Module]:
        return [self.bottleneck, *self.layers]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """words `[B, W, F]` int8, padded on the right with 0, and mask `[B, W]`."""
        lengths = torch.tensor([len(s["words"]) for s in samples])
        words = nn.utils.rnn.pad_sequence([s["words"] for s in samples], batch_first=True)
        return {"words": words, "mask": torch.arange(words.shape[1]) < lengths[:, None]}

    def forward(self, words: Tensor, mask: Tensor) -> Features:
        """words `[B, W, F]`, mask `[B, W]` -> tokens `[B, W, D]`."""
        x = self.bottleneck(words.to(next(self.bottleneck.parameters()).dtype))
        lengths = mask.sum(1)
        for layer in self.layers:
            forward, backward = _halves(layer, x, lengths)
            x = torch.cat([forward, backward], -1).masked_fill(~mask[..., None], 0)
        return Features(x, mask)


def _halves(layer: nn.Module, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return both directions of a recurrent layer; backwards, a row is read from its own end."""
    places = torch.arange(x.shape[1], device=x.device)
    turned = (lengths[:, None] - 1 - places).clamp(min=0)
    reverse = torch.where(places < lengths[:, None], turned, places)[..., None]
    states = layer(x)[0].chunk(2, -1)[0]
    flipped = layer(x.gather(1, reverse.expand_as(x)).flip(1))[0].chunk(2, -1)[1].flip(1)
    return states, flipped.gather(1, reverse.expand_as(flipped))
