"""Text -> ids, with an end that survives a cut.

Legend: `L` tokens of one text.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .base import Fittable, Processor, ReadError, Sample, Tokenizer


class CutCounter:
    """Counts the texts that were cut and warns of the first, the tenth, the hundredth..., in each
    process that reads texts."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, limit: str, text: str) -> None:
        """Count a text that is longer than `limit`, a phrase."""
        self.count += 1
        if str(self.count).strip("0") == "1":
            excerpt = text if len(text) <= 60 else f"{text[:60]}..."
            count_text = "a text is" if self.count == 1 else f"{self.count:,} texts so far are"
            warnings.warn(
                f"text: {count_text} longer than {limit} and cut, the last {excerpt!r}",
                stacklevel=4,
            )


class TextProcessor(Processor):
    """`{"ids": long [L]}` by a fitted tokenizer, special tokens included.

    max_length: a longer text is cut and counted; the special tokens at its ends are kept, since a
    vector may be read from one of them.

    `languages` are those of an encoder with parameters of each, and `language` is its default:
    a sample then has `language`, the index of the one that its text names (`LanguageText`).
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        if max_length < 2:
            raise ValueError(f"text: max_length is {max_length}, must be at least 2")
        self.tokenizer, self.max_length = tokenizer, max_length
        self.languages: tuple[str, ...] = ()
        self.language: str | None = None
        self.cut = CutCounter()

    def prepare(self, raw: str) -> Sample:
        """ids `[L]`, `1 <= L <= max_length`. Raise ReadError if a text has no token at all,
        or the special tokens alone fill `max_length`."""
        ids = self.tokenizer.encode(raw, special=True)
        if not ids:
            raise ReadError(raw, "the tokenizer returns no token", "a text with visible characters")
        if len(ids) > self.max_length:
            self.cut.add(f"max_length {self.max_length}", raw)
            ids = self._shortened(raw, ids)
        sample = {"ids": torch.tensor(ids, dtype=torch.long)}
        return {**sample, "language": self._language(raw)} if self.languages else sample

    def _language(self, raw: str) -> Tensor:
        name = getattr(raw, "language", self.language)
        if name not in self.languages:
            wrong = "the text names no language" if name is None else f"its language is {name!r}"
            expected = ", ".join(self.languages)
            cure = 'in a cell {"text": ..., "language": ...}, or the default_language in config'
            raise ReadError(raw, wrong, f"one of {expected}, {cure}")
        return torch.tensor(self.languages.index(name))

    def _shortened(self, raw: str, ids: list[int]) -> list[int]:
        plain_ids = self.tokenizer.encode(raw)
        special = len(ids) - len(plain_ids)
        begin = next(
            (n for n in range(special + 1) if ids[n : n + len(plain_ids)] == plain_ids), None
        )
        if begin is None:  # the tokens at the ends are not known
            return ids[: self.max_length]
        if special >= self.max_length:
            wrong = f"its {special} special tokens fill max_length {self.max_length}"
            raise ReadError(raw, wrong, "a greater max_length")
        end = ids[begin + len(plain_ids) :]
        return [*ids[: self.max_length - len(end)], *end]

    def settings(self) -> dict[str, Any]:
        settings = {"max_length": self.max_length, "tokenizer": fingerprint(self.tokenizer)}
        if not self.languages:
            return settings
        return {**settings, "languages": list(self.languages), "language": self.language}


def collate_ids(samples: Sequence[Sample], pad_id: int) -> dict[str, Tensor]:
    """Return the ids of samples `[B, L]`, padded on the right, and their mask `[B, L]`; the indices
    of their languages `[B]` as well, where they have them."""
    rows = [sample["ids"] for sample in samples]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id)
    lengths = torch.tensor([len(row) for row in rows])
    batch = {"ids": ids, "mask": torch.arange(ids.shape[1]) < lengths[:, None]}
    if "language" in samples[0]:
        batch["languages"] = torch.stack([sample["language"] for sample in samples])
    return batch


def fingerprint(tokenizer: Fittable) -> str:
    """Return a hash of the tokenizer's options and fitted state."""
    kind = f"{type(tokenizer).__module__}:{type(tokenizer).__qualname__}"
    state = json.dumps(tokenizer.state(), sort_keys=True, default=lambda array: array.tolist())
    return hashlib.sha256(f"{kind}\n{state}".encode()).hexdigest()


PROBES: dict[str, Sequence[str]] = {
    "spaces at the ends": (" a", "a "),
    "several spaces": ("a  b",),
    "tabs and line breaks": ("a\tb", "a\nb"),
    "capitals": ("Ab",),
    "punctuation": ("a, b. (c) it's",),
    "accents": ("é à",),
    "separate accents (NFD)": ("e\u0301",),
    "other scripts": ("नमस्ते", "你好", "สวัสดี"),
    "emoji": ("👩‍🚀",),
}
"""Texts that show which characters a tokenizer keeps, by kind."""


def lost_in_text(tokenizer: Tokenizer) -> list[str]:
    """Return what of `PROBES` does not come back: `decode(encode(text)) != text`. What the
    tokenizer refuses is not lost."""

    def loses(text: str) -> bool:
        try:
            return tokenizer.decode(tokenizer.encode(text)) != text
        except ValueError:
            return False

    return [name for name, texts in PROBES.items() if any(map(loses, texts))]
