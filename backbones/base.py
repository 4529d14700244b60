"""The shared language decoder, behind one call for every family of models.

Legend: `B` batch, `T` positions of the embeds, `P` positions of the context, `D` width,
`V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..modalities.base import Features, Part, Tokenizer

Attention = Literal["causal", "prefix", "block", "bidirectional"]


@dataclass(frozen=True)
class ContextCache:
    """A context that was read once: a key-value cache or an encoder's output.

    mask: `[B, P]` bool, True = real. state: the model's own object. attention: how the
    context was read. A forward leaves it as it was.
    """

    mask: Tensor
    state: Any
    attention: Attention


class Backbone(Part, nn.Module):
    """A language model that reads embeddings. Nothing about pixels or sound in here.

    dim: width of the embeddings. mask_id: the id that stands for "not yet known" in masked
    diffusion, or None. supports: the kinds of attention it can do, `inputs_embeds`, and
    `vocabulary` (it has both `embed` and `logits`).

    Attention: `causal`; `prefix` (the context sees itself both ways, the rest is causal);
    `block` (the context sees itself, the positions see everything); `bidirectional` (no
    context: an encoder).
    """

    dim: int
    tokenizer: Tokenizer
    mask_id: int | None = None
    supports: frozenset[str] = frozenset({"causal", "inputs_embeds", "vocabulary"})

    def unsupported_reason(self, ability: str) -> str | None:
        """Return why the model does not support something, in one line; None if it does."""
        if ability in self.supports:
            return None
        return f"{type(self).__name__} does not support {ability}; it supports {self._supported}"

    @property
    def _supported(self) -> str:
        return ", ".join(sorted(self.supports))

    def embed(self, ids: Tensor) -> Tensor:
        """ids `[..., T]` -> embeddings `[..., T, D]`, as the model itself would feed them."""
        raise NotImplementedError

    def add_tokens(self, n: int) -> int:
        """Append `n` rows to the vocabulary; only these rows train. Gives the first new id."""
        raise NotImplementedError

    def added_token_parameters(self) -> frozenset[str]:
        """Names in the state of the rows that were added: weights from elsewhere lack them."""
        return frozenset()

    def unfreeze_added_tokens(self) -> None:
        """Let the rows that were added train, whatever was frozen since."""

    def forward(
        self,
        embeds: Tensor,
        mask: Tensor | None = None,
        context: Features | ContextCache | None = None,
        attention: Attention = "causal",
    ) -> Tensor:
        """embeds `[B, T, D]`, mask `[B, T]` -> hidden `[B, T, D]` of these positions alone.

        context: what stands before them (a causal model) or in the encoder (seq2seq).
        """
        raise NotImplementedError

    def prefill(self, context: Features, attention: Attention = "causal") -> ContextCache:
        """The context once, for many forwards: `prefill` + `forward` equals one pass."""
        raise NotImplementedError

    def select_rows(self, cache: ContextCache, rows: Tensor) -> ContextCache:
        """Return the cache of the rows `[n]` of the batch alone, for when the others are done."""
        raise NotImplementedError

    def teacher_force(
        self,
        context: Features,
        ids: Tensor,
        mask: Tensor,
        attention: Attention = "causal",
    ) -> Tensor:
        """Teacher forcing: hidden `[B, L, D]` whose place i predicts `ids[:, i]` (`[B, L]`)."""
        raise NotImplementedError

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """hidden `[..., D]` -> logits `[..., V]`, or `[..., len(ids)]` of the allowed rows."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(
        self, context: Features, attention: Attention = "causal", **options: Any
    ) -> Tensor:
        """New ids `[B, L]` after the context, padded with `pad_id`; transformers' options."""
        raise NotImplementedError

    def blocks(self) -> Sequence[nn.Module]:
        """The layers from input to output, for `freeze: {last: n}`."""
        return ()
