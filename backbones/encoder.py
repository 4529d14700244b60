"""The stack of a decoder as the encoder of a text stream: `encoder: {share: backbone}`.

Legend: `B` batch, `L` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..modalities.base import Encoder, Features, LayerHook, Sample
from ..modalities.text_processor import TextProcessor, collate_ids
from .base import Backbone
from .visibility import AttentionKind


class BackboneEncoder(Encoder):
    """Encodes a text by the layers of a decoder: its hidden states, after the final norm; pooling
    is left to the connector.

    backbone: shared with the recipe's decoder; training one trains the other. attention: of each
    token to the others. max_length: longer texts are truncated.
    """

    def __init__(
        self, *, backbone: Backbone, attention: AttentionKind = "causal", max_length: int = 512
    ) -> None:
        super().__init__()
        if reason := backbone.unsupported_reason(attention):
            raise ValueError(f"attention: {reason}")
        self.backbone, self.attention, self.dim = backbone, attention, backbone.dim
        self.processor = TextProcessor(backbone.tokenizer, max_length)
        layers = {"hidden_states"} if "hidden_states" in backbone.supports else set()
        same = {"layer_hooks", "inputs_embeds", "vocabulary"}
        self.supports = frozenset({"ids"} | same & backbone.supports | layers)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return ids `[B, L]` padded on the right, and mask `[B, L]`."""
        return collate_ids(samples, self.backbone.tokenizer.pad_id)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        hidden_states: Sequence[int] = (),
        layer_hooks: Mapping[int, LayerHook] | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Features:
        """Return tokens `[B, L, D]` of ids `[B, L]` and mask `[B, L]`, zero where padded.

        hidden_states, layer_hooks: layers, 0 the first, -1 the last. inputs_embeds: `[B, L, D]`, in
        place of the ids' embeddings.
        """
        embeds = self.embed(ids) if inputs_embeds is None else inputs_embeds
        options: dict[str, Any] = {"layer_hooks": layer_hooks} if layer_hooks else {}
        options |= {"hidden_states": tuple(hidden_states)} if hidden_states else {}
        out = self.backbone(embeds, mask, attention=self.attention, **options)
        hidden, states = out if hidden_states else (out, ())
        padded = ~mask.unsqueeze(-1)
        inner = tuple(Features(state.masked_fill(padded, 0), mask) for state in states)
        return Features(hidden.masked_fill(padded, 0), mask, hidden_states=inner)

    def embed(self, ids: Tensor) -> Tensor:
        """ids `[B, L]` -> embeddings `[B, L, D]`."""
        return self.backbone.embed(ids)

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """hidden `[..., D]` -> logits `[..., V]`, or `[..., len(ids)]` of the ids alone."""
        return self.backbone.logits(hidden, ids)

    def blocks(self) -> Sequence[nn.Module]:
        return self.backbone.blocks()
