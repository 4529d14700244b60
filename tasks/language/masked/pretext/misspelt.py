"""A misspelt word of a text, restored (noisy LM; Ma et al. 2020, CharBERT, section 3.3).

Legend: `S` rows with such a word, `L` tokens, `D` width, `N` predictions.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .....modalities.base import PositiveInt
from ....base import Row, Tools
from ...spans import token_places
from ..text import TextIds, encode_text
from .base import Encoded, Losses, Pretext
from .entities import no_losses

WORD = re.compile(r"[^\W\d_]{4,}")


def misspell(word: str, rng: np.random.Generator) -> str:
    """Return a word of two letters or more in which one letter is missing, another one is put in,
    or two neighbours are exchanged."""
    place = int(rng.integers(len(word) - 1))
    first, second = word[place], word[place + 1]
    kinds = [first + word[int(rng.integers(len(word)))] + second, second]
    kinds += [] if first == second else [second + first]
    return word[:place] + kinds[int(rng.integers(len(kinds)))] + word[place + 2 :]


class Misspelt(Pretext):
    """The tokens of a word that is misspelt in what the encoder reads, from the mean state of its
    tokens there. One word of four letters or more is drawn for each text. max_tokens: of a word."""

    def __init__(self, *, max_tokens: PositiveInt = 16) -> None:
        super().__init__()
        self.max_tokens = max_tokens

    def build(self, dim: int) -> None:
        self.places = nn.Embedding(self.max_tokens, dim)
        nn.init.normal_(self.places.weight, std=0.02)
        self.write = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.LayerNorm(dim))

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """Labels: `ids` of the text with the misspelt word, `place`, its first token and the one
        after its last, and `word`, the tokens of the right one; empty without a word."""
        ((stream, tokenizer),) = tools.stream_tokenizers.items()
        text = str(row.get(stream, ""))
        rng = np.random.default_rng(zlib.crc32(text.encode())) if rng is None else rng
        words = list(WORD.finditer(text))
        if words:
            start, stop = words[int(rng.integers(len(words)))].span()
            wrong = misspell(text[start:stop], rng)
            ids = tokenizer.encode(text[:start] + wrong + text[stop:], special=True)
            before = " " if text[start - 1 : start] == " " else ""
            word = tokenizer.encode(before + text[start:stop])
            for place in token_places(ids, tokenizer, [(start, start + len(wrong))]):
                if len(word) <= self.max_tokens:
                    values = {"ids": ids, "place": place, "word": word}
                    return {name: torch.tensor(value) for name, value in values.items()}
        return {name: torch.zeros(0, dtype=torch.long) for name in ("ids", "place", "word")}

    def predicted(self, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return logits `[N, V]`, ids and rows `[N]` of the words' tokens; None without a word."""
        places, known = encoded.labels[f"{self.name}.place"]
        if places.shape[1] < 2 or places.is_meta:
            return None
        ids, real = encoded.labels[f"{self.name}.ids"]
        limit, tokenizer = encoded.encoder.processor.max_length, encoded.encoder.processor.tokenizer
        rows = (known[:, 1] & (places[:, 1] <= limit)).nonzero()[:, 0]
        if not len(rows):
            return None
        ids, real = ids[rows, :limit], real[rows, :limit]
        ids = ids.masked_fill(~real, tokenizer.pad_id)
        states = encode_text(encoded.encoder, TextIds(ids, real, ~real)).tokens
        position = torch.arange(ids.shape[1], device=ids.device)
        start, stop = places[rows].T[..., None]
        inside = ((position >= start) & (position < stop))[..., None]
        mean = (states * inside).sum(1) / inside.sum(1)
        words, spelt = (value[rows] for value in encoded.labels[f"{self.name}.word"])
        word, offset = spelt.nonzero(as_tuple=True)
        hidden = self.write(torch.cat([mean[word], self.places(offset)], -1))
        return encoded.encoder.logits(hidden).float(), words[word, offset], rows[word]

    def losses(self, encoded: Encoded) -> Losses:
        if (predicted := self.predicted(encoded)) is None:
            return no_losses(self, encoded)
        logits, labels, rows = predicted
        return Losses(F.cross_entropy(logits, labels, reduction="none"), rows)

    def measures(self, encoded: Encoded) -> dict[str, Tensor]:
        """`misspelt_accuracy`: whether all tokens of the word are right."""
        right = torch.full((len(encoded.text.ids),), torch.nan)
        if (predicted := self.predicted(encoded)) is not None:
            logits, labels, rows = predicted
            hits = (logits.argmax(-1) == labels).float()
            for row in rows.unique().tolist():
                right[row] = hits[rows == row].min()
        return {f"{self.name}_accuracy": right}
