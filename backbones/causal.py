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
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache

from ..modalities.base import Features, LayerHook
from ..modalities.submodules import lacks_values, outline
from .base import ContextCache, HiddenStates
from .configs import CAUSAL, one_line
from .generation import CausalGeneration
from .stack import (
    LayerAccess,
    Packed,
    Positions,
    Trial,
    arrange,
    balances,
    check_length,
    layers_of,
    meta_experts,
    pack,
    packed_positions,
    position_ids,
    real_first,
    router_terms,
    run_masked,
    sliding_windows,
    take,
    try_stack,
)
from .visibility import Attention, Visibility, as_visibility

PER_LAYER = "hidden_size_per_layer_input"
"""The option of Gemma's kind by which every layer embeds the ids again."""


class Causal(CausalGeneration):
    """Llama, Qwen, Mistral, Gemma, GPT-2, OPT, Phi, GPT-NeoX, Mamba..."""

    auto = AutoModelForCausalLM
    builtin = CAUSAL

    def _complete_config(self, config: Any, options: Mapping[str, Any]) -> None:
        """Let models that are encoders by default (BERT's kind) attend causally."""
        if not getattr(config, "is_encoder_decoder", False) and "is_decoder" in config.to_dict():
            config.is_decoder = options.get("is_decoder", True)
            if getattr(config, "pad_token_id", None) is None:  # positions are counted from it
                config.pad_token_id = self.tokenizer.pad_id

    def _no_masks(self) -> str | None:
        types = set(sliding_windows(self.settings).by_type)
        recurrent = types - {"", "full_attention", "sliding_attention"}
        trial = try_stack(self.decoder, self.model.config._attn_implementation)
        if any(getattr(module, "holds_state", False) for module in self.decoder.modules()):
            self.trial = Trial(is_causal=True, obeys_masks=False, skips_padding=False)
            return "its layers hold a state: a transform put them there"
        self.trial = trial
        if trial is not None and not trial.is_causal:
            raise ValueError(
                f"config: {self.kind} attends to later positions, so it cannot write from left to "
                "right; use the backbone `masked` or a causal model"
            )
        takes = inspect.signature(self.decoder.forward).parameters
        if "per_layer_inputs" in takes and getattr(self.settings, PER_LAYER, None):
            raise ValueError(
                f"config: {self.kind} reads the ids of its tokens at every layer, which embeddings "
                f"do not carry; take a model whose {PER_LAYER} is 0"
            )
        if self.model._is_stateful or recurrent:
            return f"its layers hold a state: {', '.join(sorted(recurrent)) or 'recurrent'}"
        code = sys.modules[type(self.decoder).__module__]
        obeys = hasattr(code, "create_causal_mask") if trial is None else trial.obeys_masks
        return None if obeys else "it makes its own mask and takes no other"

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
        with meta_experts(self.model, embeds.device):
            if isinstance(context, ContextCache):
                return access.output(self._after(context, packed, visibility, access))
            try:
                return access.output(self._row(packed, visibility, access))
            except Exception as error:
                if not lacks_values(error, embeds):
                    raise
                self.not_walked = one_line(error)
        return outline(self, embeds)

    def _row(self, packed: Packed, visibility: Visibility, access: LayerAccess) -> Tensor:
        """Hidden `[B, N, D]` of a packed row."""
        tokens, row, past = packed.tokens, packed.positions, packed.first
        if self._needs_mask(visibility, tokens.device):
            order, length = packed.indices, tokens.shape[1] - past
            visibility = visibility.map_masks(lambda m: arrange(m, past, length, order, order))
            return self._masked(tokens, row, row, visibility, access=access)
        offset = self._first_position
        check_length(self.settings, self.kind, row.real, visibility, offset)
        # With a cache the library does not look into the values, which the meta device has not.
        with access.attached():
            out = self.decoder(inputs_embeds=tokens, use_cache=tokens.device.type == "meta")
        return self._last_hidden(out, row.real)

    def _last_hidden(self, out: Any, real: Tensor) -> Tensor:
        """Return the hidden states of the library's output; keep the terms of its routers."""
        if balances(self.settings) and torch.is_grad_enabled():
            self.auxiliary.append(router_terms(out.router_logits, real, self.settings))
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _needs_mask(self, visibility: Visibility, device: torch.device) -> bool:
        """Return whether the model needs a mask: on the meta device transformers cannot detect
        packed rows."""
        is_causal = visibility.is_named and visibility.base == "causal"
        return not is_causal or (device.type == "meta" and not self.no_masks)

    def _masked(
        self,
        tokens: Tensor,
        query: Positions,
        key: Positions,
        visibility: Visibility,
        cache: DynamicCache | None = None,
        access: LayerAccess | None = None,
    ) -> Tensor:
        """Return hidden `[B, Q, D]` of packed tokens under the visibility's masks, in their
        order."""
        offset = self._first_position
        check_length(self.settings, self.kind, key.real, visibility, offset)
        positions = {}
        if self._takes_positions:
            positions["position_ids"] = position_ids(visibility, query, key) + offset
        elif visibility.restart_positions:
            raise ValueError(f"{self.kind} takes no position ids, so they cannot restart")
        out = run_masked(
            self.decoder,
            sliding_windows(self.settings),
            tokens,
            query,
            key,
            visibility,
            access or LayerAccess(self.kind, self.blocks(), Packed(tokens, query)),
            **positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return self._last_hidden(out, query.real)

    def prefill(self, context: Features, attention: Attention = "causal") -> ContextCache:
        """Return the context as a key-value cache; `prefix` and `block` run it bidirectionally.

        Raise ValueError for a model that takes no custom mask.
        """
        visibility = as_visibility(attention)
        no_positions = None if self._takes_positions else "it takes no position ids"
        if self.no_masks or no_positions or visibility.base == "bidirectional":
            reason = self.no_masks or no_positions or "bidirectional attention has no context"
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
        input_mask = torch.cat([torch.ones_like(mask[:, :1]), mask[:, :-1]], 1)

        def rearrange(visible: Tensor) -> Tensor:
            """Return the same for [before, last, all but the last id]."""
            after = torch.arange(past, past + length - 1, device=numbers.device)
            order = torch.cat([numbers.expand(len(last), -1), last, after.expand(len(last), -1)], 1)
            return arrange(visible, past, length, order, order)

        visibility = as_visibility(attention).map_masks(rearrange)
        hidden: Tensor = self(embeds, input_mask, before, visibility, layer_hooks)
        return hidden

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """hidden `[..., D]` -> logits `[..., V]` as the model itself computes them."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        # With a cache the library does not look into the values, which the meta device has not.
        cached = flat.device.type == "meta"
        logits = self._logits(flat, ids, inputs_embeds=flat, use_cache=cached)
        return logits.view(*hidden.shape[:-1], logits.shape[-1])

    def blocks(self) -> Sequence[nn.Module]:
        return layers_of(self.decoder)


def _copied(cache: DynamicCache) -> DynamicCache:
    """Copy a cache: its layers grow, or lose rows, independently, since both create new tensors."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    return copied
