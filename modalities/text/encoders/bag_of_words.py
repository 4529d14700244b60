"""A text as the set of its pieces: a vector over the vocabulary without a parameter.

Zhou et al., "Retrieval-based Disentangled Representation Learning with Natural Language
Supervision" (VDR), 2022: the bag-of-words view that makes the entries of a learned vector words.

Legend: `B` batch, `L` tokens, `V` entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...base import Encoder, Features, PositiveInt, Sample, Tokenizer
from ...text_processor import TextProcessor, collate_ids


class BagOfWords(Encoder):
    """tokens: one-hot vectors of the text's pieces. pooled: 1 for each piece of the text, else 0.

    max_length: longer texts are truncated.
    """

    def __init__(self, *, tokenizer: Tokenizer, max_length: PositiveInt = 512) -> None:
        super().__init__()
        self.dim, self.tokenizer = tokenizer.size, tokenizer
        self.processor: TextProcessor = TextProcessor(tokenizer, max_length)
        special = {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id} - {None}
        plain = torch.ones(tokenizer.size)
        plain[[i for i in special if i is not None]] = 0.0
        self.register_buffer("plain", plain, persistent=False)

    plain: Tensor
    """`[V]`, 0 for the pieces around a text."""

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return ids `[B, L]` padded on the right, and mask `[B, L]`."""
        return collate_ids(samples, self.tokenizer.pad_id)

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        """Return tokens `[B, L, V]` and pooled `[B, V]` of ids and mask `[B, L]`."""
        tokens = F.one_hot(ids, self.dim).to(self.plain) * self.plain
        tokens = tokens.masked_fill(~mask[..., None], 0)
        return Features(tokens, mask, pooled=tokens.amax(1))
