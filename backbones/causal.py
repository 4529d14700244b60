"""Decoders of one stack: any `AutoModelForCausalLM` that accepts `inputs_embeds`.

Legend: `B` batch, `P` context, `T` positions, `L` target ids, `D` width, `V` vocabulary.

The context stands in front of the positions, in one row. Under `causal` attention the row is
packed and needs no mask; under the other kinds, and after a `ContextCache`, the model gets additive
4-D masks and position ids. A cache is a key-value cache without sliding windows: the masks
see to those, so that nothing a later position may look at is thrown away.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache

from ..modalities.base import Features
from .base import Attention, ContextCache
from .configs import CAUSAL
from .masks import (
    Positions,
    additive,
    allowed_length,
    pack,
    positions_from_mask,
    sliding_windows,
    take,
)
from .pretrained import Pretrained


class Causal(Pretrained):
    """Llama, Qwen, Mistral, Gemma, GPT-2, OPT, Phi, GPT-NeoX, Mamba..."""

    auto: ClassVar[Any] = AutoModelForCausalLM
    builtin = CAUSAL

    def _no_masks(self) -> str | None:
        takes = inspect.signature(self.decoder.forward).parameters
        code = sys.modules[type(self.decoder).__module__]
        odd = set(sliding_windows(self.settings)) - {"", "full_attention", "sliding_attention"}
        if self.model._is_stateful or odd:
            return f"its layers hold a state: {', '.join(sorted(odd)) or 'recurrent'}"
        if not (hasattr(code, "create_causal_mask") and hasattr(code, "ALL_ATTENTION_FUNCTIONS")):
            return "it makes its own mask and takes no other"
        return None if "position_ids" in takes else "it takes no position ids"

    @property
    def settings(self) -> Any:
        """The configuration of the decoder."""
        return self.model.config.get_text_config(decoder=True)

    def forward(
        self,
        embeds: Tensor,
        mask: Tensor | None = None,
        context: Features | ContextCache | None = None,
        attention: Attention = "causal",
    ) -> Tensor:
        """embeds `[B, T, D]`, mask `[B, T]` -> hidden `[B, T, D]`; rows may be padded anywhere.

        Raises ValueError for attention that the model cannot do.
        """
        self._check(attention, context)
        embeds = embeds.to(self.dtype)
        if isinstance(context, ContextCache):
            return self._after(context, embeds, mask, attention)
        if context is None:
            packed = pack(embeds, mask)
        else:
            packed = pack(embeds, mask, context.tokens.to(self.dtype), context.mask)
        # On the meta device transformers cannot look for packed rows, and a mask spares it that.
        masked = attention != "causal" or (
            packed.tokens.device.type == "meta" and not self.no_masks
        )
        if masked:
            hidden = self._masked(packed.tokens, packed.line, packed.line, attention)
        else:
            self._fits(packed.tokens.shape[1], attention)
            hidden = self.decoder(inputs_embeds=packed.tokens, use_cache=False).last_hidden_state
        return packed.unpack(hidden)

    def _masked(
        self,
        tokens: Tensor,
        query: Positions,
        key: Positions,
        attention: Attention,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        kinds = sliding_windows(self.settings)
        self._fits(key.real.shape[1], attention)
        found: Tensor = self.decoder(
            inputs_embeds=tokens,
            attention_mask=additive(attention, query, key, kinds, tokens.dtype),
            position_ids=query.position.expand(len(tokens), -1),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return found

    def _fits(self, length: int, attention: Attention) -> None:
        allowed_length(self.settings, self.kind, length, attention)

    def prefill(self, context: Features, attention: Attention = "causal") -> ContextCache:
        """The context as a key-value cache; `prefix` and `block` read it both ways.

        Raises ValueError for a model that takes no mask of ours.
        """
        if self.no_masks or attention == "bidirectional":
            reason = self.no_masks or "bidirectional attention has no context"
            raise ValueError(f"{self.kind} cannot prefill a context: {reason}")
        packed = pack(
            context.tokens[:, :0].to(self.dtype),
            context.mask[:, :0],
            context.tokens.to(self.dtype),
            context.mask,
        )
        cache = DynamicCache()
        self._masked(packed.tokens, packed.line, packed.line, attention, cache)
        return ContextCache(packed.line.real, cache, attention)

    def select_rows(self, cache: ContextCache, rows: Tensor) -> ContextCache:
        state = _copied(cache.state)
        state.batch_select_indices(rows)
        return ContextCache(cache.mask[rows], state, cache.attention)

    def _after(
        self, cache: ContextCache, embeds: Tensor, mask: Tensor | None, attention: Attention
    ) -> Tensor:
        if (cache.attention == "causal") != (attention == "causal"):
            raise ValueError(
                f"context: was prefilled for {cache.attention} attention, found {attention}; "
                "prefill it again for this one"
            )
        packed = pack(embeds, mask)
        seen = _line(cache.mask)
        start = cache.mask.sum(1, keepdim=True)
        line = packed.line
        query = Positions(line.position + start, line.real, line.context)
        state = _copied(cache.state)
        return packed.unpack(self._masked(packed.tokens, query, seen + query, attention, state))

    def teacher_force(
        self,
        context: Features,
        ids: Tensor,
        mask: Tensor,
        attention: Attention = "causal",
    ) -> Tensor:
        """Teacher forcing: hidden `[B, L, D]` whose place i predicts `ids[:, i]`.

        The last real position of the context stands before the targets (nothing is put between
        prompt and answer), and so belongs to neither way of a prefix, as in `generate`.
        """
        self._filled(context)
        places = torch.arange(context.mask.shape[1], device=context.mask.device)
        last = (places * context.mask).amax(1, keepdim=True)  # [B, 1]
        before = context.replace(mask=context.mask & (places != last), grid=None)
        embeds = torch.cat([take(context.tokens, last), self.embed(ids[:, :-1])], 1)
        known = torch.cat([torch.ones_like(mask[:, :1]), mask[:, :-1]], 1)
        return self(embeds, known, before, attention)

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """hidden `[..., D]` -> logits `[..., V]` as the model itself would give them."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        return self._logits(flat, ids, inputs_embeds=flat).view(*hidden.shape[:-1], -1)

    @torch.no_grad()
    def generate(
        self, context: Features, attention: Attention = "causal", **options: Any
    ) -> Tensor:
        """New ids `[B, L]` after the context, padded with `pad_id`; transformers' options."""
        self._check(attention, context)
        if attention == "block":
            raise ValueError(
                "block attention fills positions at once; generate takes causal or prefix"
            )
        self._filled(context)
        order = context.mask.to(torch.uint8).argsort(dim=1, stable=True)
        order = order[:, order.shape[1] - int(context.lengths.max()) :]
        tokens, mask = take(context.tokens.to(self.dtype), order), context.mask.gather(1, order)
        if attention == "prefix" and tokens.shape[1] > 1:
            options["past_key_values"] = self._prefix(tokens, mask, options)
        found: Tensor = self._generator().generate(
            inputs_embeds=tokens, attention_mask=mask.long(), **options
        )
        return found

    def _prefix(self, tokens: Tensor, mask: Tensor, options: dict[str, Any]) -> DynamicCache:
        """A cache of all positions but the last, read both ways; a copy for every beam."""
        line, cache = positions_from_mask(mask[:, :-1], context=True), DynamicCache()
        self._masked(tokens[:, :-1], line, line, "prefix", cache)
        copies = max(options.get("num_beams", 1), options.get("num_return_sequences", 1))
        for layer in cache.layers:
            layer.batch_repeat_interleave(copies)
        return cache

    def blocks(self) -> Sequence[nn.Module]:
        return self._layers(self.decoder)


def _copied(cache: DynamicCache) -> DynamicCache:
    """A cache whose layers grow, or lose rows, apart: both make new tensors."""
    found = copy.copy(cache)
    found.layers = [copy.copy(layer) for layer in cache.layers]
    return found


def _line(mask: Tensor) -> Positions:
    """The places of a packed context."""
    return Positions(torch.arange(mask.shape[1], device=mask.device)[None], mask, mask)
