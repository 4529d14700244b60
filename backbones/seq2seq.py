"""Encoder-decoders: any `AutoModelForSeq2SeqLM` (T5, BART, T5Gemma...).

Legend: `B` batch, `P` context, `T` positions, `L` target ids, `D` width, `V` vocabulary.

The context goes to the encoder, which always sees all of it, the positions to the decoder.
`causal` and `prefix` are therefore the same; under `block` the positions see each other;
`bidirectional` is the encoder alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

from ..modalities.base import Features
from .base import Attention, ContextCache
from .configs import SEQ2SEQ
from .masks import additive, allowed_length, pack, sliding_windows
from .pretrained import Pretrained


class Seq2Seq(Pretrained):
    """T5, BART, T5Gemma..."""

    auto: ClassVar[Any] = AutoModelForSeq2SeqLM
    builtin = SEQ2SEQ

    def _no_masks(self) -> str | None:
        for stack in (self.encoder, self.decoder):
            if getattr(stack, "embed_scale", 1.0) != 1.0:
                raise ValueError(
                    f"config: {self.kind} scales embeddings outside its table; take a model "
                    "whose table does it (bart, mbart, t5, t5gemma)"
                )
        code = sys.modules[type(self.decoder).__module__]
        takes = hasattr(code, "create_causal_mask")
        return None if takes else "it makes its own mask and takes no other"

    @property
    def encoder(self) -> Any:
        return self.model.get_encoder()

    @property
    def settings(self) -> Any:
        """The configuration of the decoder."""
        return self.decoder.config

    def embed_positions(self, ids: Tensor) -> Tensor:
        """As `embed`, from the decoder's table where it has one of its own (T5Gemma)."""
        return self._embed(self.decoder.get_input_embeddings(), ids)

    def _encode(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Packed tokens `[B, P, D]` -> the encoder's output `[B, P, D]`."""
        allowed_length(self.encoder.config, self.kind, mask.shape[1], "causal")
        found: Tensor = self.encoder(
            inputs_embeds=tokens, attention_mask=_padding(mask, mask.shape[1], tokens.dtype)
        ).last_hidden_state
        return found

    def forward(
        self,
        embeds: Tensor,
        mask: Tensor | None = None,
        context: Features | ContextCache | None = None,
        attention: Attention = "causal",
    ) -> Tensor:
        """embeds `[B, T, D]`, mask `[B, T]` -> hidden `[B, T, D]`; rows may be padded anywhere.

        Raises ValueError for attention that the model cannot do, and for a missing context.
        """
        self._check(attention, context)
        packed = pack(embeds.to(self.dtype), mask)
        if attention == "bidirectional":
            return packed.unpack(self._encode(packed.tokens, packed.line.real))
        if context is None:
            raise ValueError(f"{self.kind} is an encoder-decoder and needs a context; found none")
        cache = context if isinstance(context, ContextCache) else self.prefill(context, attention)
        length, dtype = packed.tokens.shape[1], packed.tokens.dtype
        allowed_length(self.settings, self.kind, length, attention)
        # As in the causal family: packed rows need no mask, the meta device does.
        own = None
        if attention == "block" or packed.tokens.device.type == "meta":
            kinds = sliding_windows(self.settings)
            own = additive(attention, packed.line, packed.line, kinds, dtype)
        hidden = self.decoder(
            inputs_embeds=packed.tokens,
            attention_mask=own,
            encoder_hidden_states=cache.state,
            encoder_attention_mask=_padding(cache.mask, length, dtype),
            use_cache=False,
        ).last_hidden_state
        return packed.unpack(hidden)

    def prefill(self, context: Features, attention: Attention = "causal") -> ContextCache:
        """The encoder's output for the context."""
        packed = pack(context.tokens.to(self.dtype), context.mask)
        real = packed.line.real
        return ContextCache(real, self._encode(packed.tokens, real), attention)

    def select_rows(self, cache: ContextCache, rows: Tensor) -> ContextCache:
        return ContextCache(cache.mask[rows], cache.state[rows], cache.attention)

    @property
    def start_id(self) -> int:
        """The id that stands before the first target."""
        config, stored = self.model.config, self.model.generation_config
        for found in (config, stored):
            if (start := getattr(found, "decoder_start_token_id", None)) is not None:
                return int(start)
        bos = self.tokenizer.bos_id
        return self.tokenizer.pad_id if bos is None else bos

    def teacher_force(
        self,
        context: Features,
        ids: Tensor,
        mask: Tensor,
        attention: Attention = "causal",
    ) -> Tensor:
        """Teacher forcing: hidden `[B, L, D]` whose place i predicts `ids[:, i]`."""
        self._filled(context)
        known = torch.cat([torch.full_like(ids[:, :1], self.start_id), ids[:, :-1]], 1)
        real = torch.cat([torch.ones_like(mask[:, :1]), mask[:, :-1]], 1)
        return self(self.embed_positions(known), real, context, attention)

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """hidden `[..., D]` -> logits `[..., V]` as the model itself would give them."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        encoded = BaseModelOutput(last_hidden_state=flat)
        found = self._logits(flat, ids, decoder_inputs_embeds=flat, encoder_outputs=encoded)
        return found.view(*hidden.shape[:-1], -1)

    @torch.no_grad()
    def generate(
        self, context: Features, attention: Attention = "causal", **options: Any
    ) -> Tensor:
        """New ids `[B, L]` for the context, padded with `pad_id`; transformers' options."""
        self._check(attention, context)
        if attention == "block":
            raise ValueError(
                "block attention fills positions at once; generate takes causal or prefix"
            )
        self._filled(context)
        cache = self.prefill(context, attention)
        found: Tensor = self._generator().generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=cache.state),
            attention_mask=cache.mask.long(),
            **{"decoder_start_token_id": self.start_id, **options},
        )
        return found[:, 1:]

    def blocks(self) -> Sequence[nn.Module]:
        return [*self._layers(self.encoder), *self._layers(self.decoder)]


def _padding(mask: Tensor, queries: int, dtype: torch.dtype) -> Tensor:
    """The library's own 2-D mask `[B, P]`; on the meta device, which it cannot look into, a 4-D
    one of the same meaning and of no weight."""
    if mask.device.type != "meta":
        return mask
    return torch.zeros((len(mask), 1, queries, mask.shape[1]), dtype=dtype, device=mask.device)
