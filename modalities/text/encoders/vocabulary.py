"""The logits of a text encoder's language-model head as its tokens, for lexical vectors.

Legend: `B` batch, `T` tokens, `V` entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol, cast

import torch
from torch import Tensor, nn

from ...base import Encoder, Features, Sample


class HasLogits(Protocol):
    """What an encoder that supports `vocabulary` has."""

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor: ...


class VocabularyLogits(Encoder):
    """encoder: a text encoder with a language-model head (`lm_head: true`); of a causal one with
    `echo: true` every token has read the whole text (Doshi et al., "Mistral-SPLADE", 2024).

    tokens: its logits; `connector: lexical` makes a sparse vector of them.
    """

    def __init__(self, *, encoder: Annotated[Encoder, "text"]) -> None:
        super().__init__()
        self.encoder, self.processor = encoder, encoder.processor
        self.batch_invariant = encoder.batch_invariant
        self.transformed()

    def transformed(self, check: bool = True) -> None:
        """See `Component`. Raise ValueError if the encoder has no head."""
        if "vocabulary" not in self.encoder.supports:
            raise ValueError("encoder: has no language-model head; set lm_head: true in it")
        device = next(self.encoder.parameters()).device
        with torch.no_grad():
            hidden = torch.zeros(1, 1, self.encoder.dim, device=device)
            self.dim = cast(HasLogits, self.encoder).logits(hidden).shape[-1]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        return self.encoder.collate(samples)

    def padding_samples(self) -> Sequence[Sample]:
        return self.encoder.padding_samples()

    def blocks(self) -> Sequence[nn.Module]:
        return self.encoder.blocks()

    def forward(self, **inputs: Any) -> Features:
        """Return tokens `[B, T, V]`, zero in the padding."""
        features: Features = self.encoder(**inputs)
        logits = cast(HasLogits, self.encoder).logits(features.tokens)
        tokens = logits.masked_fill(~features.mask[..., None], 0.0)
        return features.replace(tokens=tokens, pooled=None)
