"""Decoders of one stack: any `AutoModelForCausalLM` that accepts `inputs_embeds`.

Legend: `B` batch, `P` context, `T` positions, `L` target ids, `D` width, `V` vocabulary.

The context precedes the positions in one row. With `causal` attention the row is packed and needs
no mask; otherwise, and after a `ContextCache`, the model gets additive 4-D masks and position ids.
A cache is a key-value cache without sliding windows: the masks apply those, so that nothing is
dropped that a later position may attend to.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache

from ..modalities.base import Features, LayerHook
from .base import ContextCache, HiddenStates
from .configs import CAUSAL
from .layers import LayerAccess, layers_of, run_masked
from .masks import (
    Packed,
    Positions,
    arrange,
    check_length,
    pack,
    packed_positions,
    position_ids,
    positions_from_mask,
    real_first,
    sliding_windows,
    take,
)
from .pretrained import Pretrained
from .visibility import Attention, Visibility, as_visibility


class Causal(Pretrained):
    """Llama, Qwen, Mistral, Gemma, GPT-2, OPT, Phi, GPT-NeoX, Mamba..."""

    auto: ClassVar[Any] = AutoModelForCausalLM
    builtin = CAUSAL

    def _no_masks(self) -> str | None:
        takes = inspect.signature(self.decoder.forward).parameters
        code = sys.modules[type(self.decoder).__module__]
        types = set(sliding_windows(self.settings).by_type)
        recurrent = types - {"", "full_attention", "sliding_attention"}
        if self.model._is_stateful or recurrent:
            return f"its layers hold a state: {', '.join(sorted(recurrent)) or 'recurrent'}"
        if not (hasattr(code, "create_causal_mask") and hasattr(code, "ALL_ATTENTION_FUNCTIONS")):
            return "it makes its own mask and takes no other"
        return None if "position_ids" in takes else "it takes no position ids"

    @property
    def settings(self) -> Any:
        """The configuration of the decoder."""
        return self.model.config.get_text_config(decoder=True)

    def _visibility(
        self, attention: Attention, context: Features | ContextCache | None
    ) -> Visibility:
        visibility = super()._visibility(attention, context)
        if visibility.future_weight and context is not None:
            raise ValueError(
                "a visibility with future_weight takes no context: the context would see what "
                "comes after it; put it into the embeds"
            )
        return visibility

    def forward(
        self,
        embeds: Tensor,
        mask: Tensor | None = None,
        context: Features | ContextCache | None = None,
        attention: Attention = "causal",
        layer_hooks: Mapping[int, LayerHook] | None = None,
        hidden_states: Sequence[int] = (),
    ) -> Tensor | HiddenStates:
        """See `Backbone.forward`; rows may be padded anywhere.

        Raise ValueError for attention that the model does not support.
        """
        visibility = self._visibility(attention, context)
        embeds = embeds.to(self.dtype)
        if isinstance(context, Features):
            packed = pack(embeds, mask, context.tokens.to(self.dtype), context.mask)
        else:
            packed = pack(embeds, mask)
        access = self._access(self.blocks(), packed, mask, layer_hooks, hidden_states)
        if isinstance(context, ContextCache):
            return access.output(self._after(context, packed, visibility, access))
        if self._needs_mask(visibility, packed.tokens.device):
            past, order = packed.first, packed.indices
            length = order.shape[1] - past
            visibility = visibility.map_masks(lambda m: arrange(m, past, length, order, order))
            row = packed.positions
            return access.output(self._masked(packed.tokens, row, row, visibility, access=access))
        check_length(self.settings, self.kind, packed.positions.real, visibility)
        with access.attached():
            out = self.decoder(inputs_embeds=packed.tokens, use_cache=False)
        return access.output(out.last_hidden_state)

    def _needs_mask(self, visibility: Visibility, device: torch.device) -> bool:
        """Return whether the model needs a mask: on the meta device transformers cannot detect
        packed rows."""
        plain = visibility.is_named and visibility.base == "causal"
        return not plain or (device.type == "meta" and not self.no_masks)

    def _masked(
        self,
        tokens: Tensor,
        query: Positions,
        key: Positions,
        visibility: Visibility,
        cache: DynamicCache | None = None,
        access: LayerAccess | None = None,
    ) -> Tensor:
        """Hidden `[B, Q, D]` of packed tokens; the visibility's masks stand as both positions."""
        check_length(self.settings, self.kind, key.real, visibility)
        return run_masked(
            self.decoder,
            sliding_windows(self.settings),
            tokens,
            query,
            key,
            visibility,
            access or LayerAccess(self.kind, self.blocks(), Packed(tokens, query)),
            position_ids=position_ids(visibility, query, key),
            past_key_values=cache,
            use_cache=cache is not None,
        )

    def prefill(self, context: Features, attention: Attention = "causal") -> ContextCache:
        """Return the context as a key-value cache; `prefix` and `block` run it bidirectionally.

        Raise ValueError for a model that takes no custom mask.
        """
        visibility = as_visibility(attention)
        if self.no_masks or visibility.base == "bidirectional":
            reason = self.no_masks or "bidirectional attention has no context"
            raise ValueError(f"{self.kind} cannot prefill a context: {reason}")
        visibility = self._visibility(visibility, context)
        nothing = context.replace(tokens=context.tokens[:, :0], mask=context.mask[:, :0], grid=None)
        packed = pack(
            nothing.tokens.to(self.dtype),
            nothing.mask,
            context.tokens.to(self.dtype),
            context.mask,
        )
        length, order = context.mask.shape[1], packed.indices
        visibility = visibility.map_masks(lambda m: arrange(m, 0, length, order, order))
        cache, row = DynamicCache(), packed.positions
        self._masked(packed.tokens, row, row, visibility, cache)
        return ContextCache(context.mask, cache, as_visibility(attention))

    def select_rows(self, cache: ContextCache, rows: Tensor) -> ContextCache:
        state = _copied(cache.state)
        state.batch_select_indices(rows)
        return ContextCache(cache.mask[rows], state, cache.attention)

    def _after(
        self, cache: ContextCache, packed: Packed, visibility: Visibility, access: LayerAccess
    ) -> Tensor:
        """Return hidden `[B, T, D]` of a packed row after a cached context."""
        before, after = cache.attention.base, visibility.base
        if (before == "causal") != (after == "causal"):
            raise ValueError(
                f"context: was prefilled for {before} attention, found {after}; "
                "prefill it again for this one"
            )
        order = real_first(cache.mask)
        real = cache.mask.gather(1, order)
        past, queries = order.shape[1], packed.indices + order.shape[1]
        keys = torch.cat([order, queries], 1)
        length = queries.shape[1]
        visibility = visibility.map_masks(lambda m: arrange(m, past, length, queries, keys))
        query = packed.positions.after(cache.mask.sum(1, keepdim=True))
        key = packed_positions(real, real) + query
        state = _copied(cache.state)
        return self._masked(packed.tokens, query, key, visibility, state, access)

    def teacher_force(
        self,
        context: Features,
        ids: Tensor,
        mask: Tensor,
        attention: Attention = "causal",
        layer_hooks: Mapping[int, LayerHook] | None = None,
    ) -> Tensor:
        """Return hidden `[B, L, D]` whose position i predicts `ids[:, i]`.

        The last real position of the context precedes the targets (nothing is put between prompt
        and answer), and so does not belong to the context of a prefix, as in `generate`.
        """
        self._check_filled(context)
        past, length = context.mask.shape[1], ids.shape[1]
        numbers = torch.arange(past, device=context.mask.device)
        last = (numbers * context.mask).amax(1, keepdim=True)  # [B, 1]
        before = context.replace(mask=context.mask & (numbers != last), grid=None)
        embeds = torch.cat([take(context.tokens, last), self.embed(ids[:, :-1])], 1)
        known = torch.cat([torch.ones_like(mask[:, :1]), mask[:, :-1]], 1)

        def moved(visible: Tensor) -> Tensor:
            """The same for [before, last, all but the last id]."""
            rest = torch.arange(past, past + length - 1, device=numbers.device)
            order = torch.cat([numbers.expand(len(last), -1), last, rest.expand(len(last), -1)], 1)
            return arrange(visible, past, length, order, order)

        visibility = as_visibility(attention).map_masks(moved)
        hidden: Tensor = self(embeds, known, before, visibility, layer_hooks)
        return hidden

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """hidden `[..., D]` -> logits `[..., V]` as the model itself would give them."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        logits = self._logits(flat, ids, inputs_embeds=flat, use_cache=False)
        return logits.view(*hidden.shape[:-1], logits.shape[-1])

    @torch.no_grad()
    def generate(
        self, condition: Features, attention: Attention = "causal", **options: Any
    ) -> Tensor:
        """Return new ids `[B, L]` after the condition, padded with `pad_id`."""
        visibility = self._visibility(attention, condition)
        self._check_generates(visibility)
        self._check_filled(condition)
        order = condition.mask.to(torch.uint8).argsort(dim=1, stable=True)
        order = order[:, order.shape[1] - int(condition.lengths.max()) :]
        tokens, mask = take(condition.tokens.to(self.dtype), order), condition.mask.gather(1, order)
        row, length = positions_from_mask(mask, context=True), condition.mask.shape[1]
        visibility = visibility.map_masks(lambda m: arrange(m, 0, length, order, order))
        if self._needs_mask(visibility, tokens.device) and tokens.shape[1] > 1:
            options["past_key_values"] = self._prefix(tokens, row, visibility, options)
        if visibility.mask is not None:
            # A new token attends to what the last position does, and to the new tokens before it.
            options["position_ids"] = position_ids(visibility, row, row)
            mask = mask & visibility.mask[:, -1]
            mask[:, -1] = True
        ids: Tensor = self._generator().generate(
            inputs_embeds=tokens, attention_mask=mask.long(), **options
        )
        return ids

    def _prefix(
        self, tokens: Tensor, row: Positions, visibility: Visibility, options: dict[str, Any]
    ) -> DynamicCache:
        """Return a cache of all positions but the last, copied for every beam."""
        cache, row = DynamicCache(), row[:-1]
        visibility = visibility.map_masks(lambda m: m[:, :-1, :-1])
        self._masked(tokens[:, :-1], row, row, visibility, cache)
        copies = max(options.get("num_beams", 1), options.get("num_return_sequences", 1))
        for layer in cache.layers:
            layer.batch_repeat_interleave(copies)
        return cache

    def blocks(self) -> Sequence[nn.Module]:
        return layers_of(self.decoder)


def _copied(cache: DynamicCache) -> DynamicCache:
    """Copy a cache: its layers grow, or lose rows, independently, since both create new tensors."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    return copied
