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

from .base import Processor, ReadError, Sample, Tokenizer


class TextProcessor(Processor):
    """`{"ids": long [L]}` by a fitted tokenizer, special tokens included.

    max_length: a longer text is cut, with one warning a process; where it ended in the end of
    text token it still does.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        if max_length < 2:
            raise ValueError(f"text: max_length is {max_length}, must be at least 2")
        self.tokenizer, self.max_length = tokenizer, max_length

    def prepare(self, raw: str) -> Sample:
        """ids `[L]`, `1 <= L <= max_length`. ReadError where a text gives no token at all."""
        ids = self.tokenizer.encode(raw, special=True)
        if not ids:
            raise ReadError(raw, "the tokenizer gives no token", "a text with visible characters")
        if len(ids) > self.max_length:
            # One sentence for all texts, so that Python shows it once.
            warnings.warn(
                f"text: a text is longer than max_length {self.max_length} tokens and is cut",
                stacklevel=2,
            )
            ended = ids[-1] == self.tokenizer.eos_id
            ids = [*ids[: self.max_length - 1], ids[-1] if ended else ids[self.max_length - 1]]
        return {"ids": torch.tensor(ids, dtype=torch.long)}

    def settings(self) -> dict[str, Any]:
        return {"max_length": self.max_length, "tokenizer": fingerprint(self.tokenizer)}


def collate_ids(samples: Sequence[Sample], pad_id: int) -> dict[str, Tensor]:
    """Return the ids of samples `[B, L]`, padded on the right, and their mask `[B, L]`."""
    rows = [sample["ids"] for sample in samples]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id)
    lengths = torch.tensor([len(row) for row in rows])
    return {"ids": ids, "mask": torch.arange(ids.shape[1]) < lengths[:, None]}


def fingerprint(tokenizer: Tokenizer) -> str:
    """A hash of what the tokenizer is and has learned."""
    kind = f"{type(tokenizer).__module__}:{type(tokenizer).__qualname__}"
    state = json.dumps(tokenizer.state(), sort_keys=True, default=lambda array: array.tolist())
    return hashlib.sha256(f"{kind}\n{state}".encode()).hexdigest()
