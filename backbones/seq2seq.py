"""Encoder-decoders: any `AutoModelForSeq2SeqLM` (T5, BART, T5Gemma...).

Legend: `B` batch, `P` context, `T` positions, `L` target ids, `D` width, `V` vocabulary.

The context is the encoder's input, which always attends to all of itself; the positions are the
decoder's. `causal` and `prefix` are therefore the same; with `block` the positions attend to each
other; `bidirectional` is the encoder alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin

from ..modalities.base import Features, LayerHook
from ..modalities.submodules import HiddenOutput, lacks_values, outline
from .base import ContextCache, HiddenStates
from .configs import SEQ2SEQ, one_line
from .pairs import Pair
from .stack import (
    LayerAccess,
    Packed,
    arrange,
    check_length,
    layers_of,
    meta_experts,
    pack,
    real_first,
    run_masked,
    runs_from_embeddings,
    sliding_windows,
    try_stack,
)
from .visibility import CAUSAL, Attention, Visibility, as_visibility


class Seq2Seq(Pair):
    """T5, BART, T5Gemma, pairs (`model_type: encoder-decoder`), the decoder of Whisper...

    own_encoder: False leaves the model's encoder out, and the decoder attends to the context as it
    is: features of an encoder that the recipe names, which several decoders may share. start: ids,
    or tokens of the tokenizer, before the target (`["<|startoftranscript|>", "<|de|>",
    "<|transcribe|>", "<|notimestamps|>"]`); without it the model's `decoder_start_token_id`. The
    other options: see `Generative`.
    """

    builtin = SEQ2SEQ

    def _no_masks(self) -> str | None:
        for stack in (self.encoder, self.decoder):
            if getattr(stack, "embed_scale", 1.0) != 1.0:
                raise ValueError(
                    f"config: {self.kind} scales embeddings outside its table; take a model "
                    "whose table does it (bart, mbart, t5, t5gemma)"
                )
        trial = try_stack(self.decoder, self.model.config._attn_implementation, pair=True)
        if trial is not None and not trial.is_causal:
            raise ValueError(f"config: the decoder of {self.kind} attends to later positions")
        code = sys.modules[type(self.decoder).__module__]
        obeys = hasattr(code, "create_causal_mask") if trial is None else trial.obeys_masks
        return None if obeys else "it makes its own mask and takes no other"

    def embed_positions(self, ids: Tensor) -> Tensor:
        """As `embed`, from the decoder's own table if it has one (T5Gemma)."""
        return self._embed(self.decoder.get_input_embeddings(), ids)

    def _visibility(
        self, attention: Attention, context: Features | ContextCache | None
    ) -> Visibility:
        visibility = super()._visibility(attention, context)
        if visibility.restart_positions:
            raise ValueError(
                f"{self.kind}: documents and facets have no meaning in an encoder-decoder, whose "
                "encoder sees all of the context; give each its own row"
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

        Raise ValueError for attention that the model does not support, and for a missing context.
        """
        visibility = self._visibility(attention, context)
        try:
            with meta_experts(self.model, embeds.device):
                return self._forward(embeds, mask, context, visibility, layer_hooks, hidden_states)
        except Exception as error:
            attn, meta = self.model.config._attn_implementation, embeds.device.type == "meta"
            if not meta or not (
                lacks_values(error, embeds) or runs_from_embeddings(self.model, attn)
            ):
                raise
            self.not_walked = one_line(error)
        before = context.tokens if isinstance(context, Features) else None
        return outline(self, embeds if before is None else embeds + before.sum() * 0)

    def _forward(
        self,
        embeds: Tensor,
        mask: Tensor | None,
        context: Features | ContextCache | None,
        visibility: Visibility,
        layer_hooks: Mapping[int, LayerHook] | None,
        hidden_states: Sequence[int],
    ) -> Tensor | HiddenStates:
        packed = pack(embeds.to(self.dtype), mask)
        alone = visibility.base == "bidirectional"
        layers = layers_of(self.encoder if alone else self.decoder)
        access = self._access(layers, packed, mask, layer_hooks, hidden_states)
        if alone:
            return access.output(self._encode(packed, visibility, access))
        if context is None:
            raise ValueError(f"{self.kind} is an encoder-decoder and needs a context; found none")
        cache = context if isinstance(context, ContextCache) else self.prefill(context)
        return access.output(self._decode(packed, cache, visibility, access))

    def _encode(self, packed: Packed, visibility: Visibility, access: LayerAccess) -> Tensor:
        """Packed tokens `[B, P, D]` -> the encoder's output `[B, P, D]`."""
        config, tokens, row = self.encoder.config, packed.tokens, packed.positions
        length, order = row.real.shape[1], packed.indices
        check_length(config, self.kind, row.real, CAUSAL)
        if not visibility.is_named:
            visibility = visibility.map_masks(lambda m: arrange(m, 0, length, order, order))
            windows = sliding_windows(config, both_ways=True)
            out = run_masked(self.encoder, windows, tokens, row, row, visibility, access)
            return out.last_hidden_state
        with access.attached():
            hidden: Tensor = self.encoder(
                inputs_embeds=tokens, attention_mask=_padding(row.real, length, tokens.dtype)
            ).last_hidden_state
        return hidden

    def _decode(
        self, packed: Packed, cache: ContextCache, visibility: Visibility, access: LayerAccess
    ) -> Tensor:
        """Packed tokens `[B, T, D]` -> the decoder's output `[B, T, D]`."""
        tokens, row, order = packed.tokens, packed.positions, packed.indices
        length = tokens.shape[1]
        check_length(self.settings, self.kind, row.real, visibility)
        real = cache.mask.gather(1, real_first(cache.mask))
        inputs: dict[str, Any] = {"encoder_hidden_states": self._bridged(cache.state)}
        inputs |= {"use_cache": False}
        if self._masks_context(real):
            inputs["encoder_attention_mask"] = _padding(real, length, tokens.dtype)
        # As in the causal family: packed rows need no mask, the meta device does.
        is_simple = visibility.is_named and visibility.base != "block"
        meta = tokens.device.type == "meta"
        if is_simple and (not meta or self.no_masks):
            inputs["use_cache"] = meta  # with a cache the library looks into no values
            with access.attached():
                out = self.decoder(inputs_embeds=tokens, **inputs)
            hidden: Tensor = out.last_hidden_state
            return hidden
        visibility = visibility.map_masks(lambda m: self._self_mask(m, length, order))
        windows = sliding_windows(self.settings)
        stack = self.decoder
        out = run_masked(stack, windows, tokens, row, row, visibility, access, **inputs)
        return out.last_hidden_state

    def _self_mask(self, mask: Tensor, length: int, order: Tensor) -> Tensor:
        """Return the mask of the decoder's self-attention, `[B, T, T]`, for positions in this
        order."""
        if mask.shape[1:] != (length, length):
            raise ValueError(
                f"{self.kind}: found a mask {tuple(mask.shape)}, expected [B, {length}, {length}]: "
                "the decoder of an encoder-decoder always sees the whole context"
            )
        return arrange(mask, 0, length, order, order)

    def prefill(self, context: Features, attention: Attention = "causal") -> ContextCache:
        """Return the encoder's output for the context, which always sees all of itself."""
        visibility = as_visibility(attention)
        if not visibility.is_named:
            raise ValueError(
                f"{self.kind}: the encoder sees all of the context; pass the visibility to forward"
            )
        packed = pack(context.tokens.to(self.dtype), context.mask)
        if not self.encodes_context:
            return ContextCache(context.mask, packed.tokens, visibility)
        access = LayerAccess(self.kind, layers_of(self.encoder), packed)
        return ContextCache(context.mask, self._encode(packed, CAUSAL, access), visibility)

    def select_rows(self, cache: ContextCache, rows: Tensor) -> ContextCache:
        return ContextCache(cache.mask[rows], cache.state[rows], cache.attention)

    def teacher_force(
        self,
        context: Features,
        ids: Tensor,
        mask: Tensor,
        attention: Attention = "causal",
        layer_hooks: Mapping[int, LayerHook] | None = None,
    ) -> Tensor:
        """Return hidden `[B, L, D]` whose position i predicts `ids[:, i]`.

        The decoder starts with `start_ids`, which see the whole context.
        """
        self._check_filled(context)
        start = torch.tensor([self.start_ids], device=ids.device).expand(len(ids), -1)
        input_ids = torch.cat([start, ids[:, :-1]], 1)
        real = torch.cat([torch.ones_like(start, dtype=torch.bool), mask[:, :-1]], 1)
        first = start.shape[1] - 1

        def rearrange(visible: Tensor) -> Tensor:
            """Return the same for [start, all but the last id]."""
            order = torch.arange(ids.shape[1] + first, device=visible.device)
            shifted = (order - 1 - first).clamp(min=0).expand(len(ids), -1)
            visible = self._self_mask(visible, ids.shape[1], shifted)
            return visible | (order <= first)[:, None] | (order <= first)

        visibility = as_visibility(attention).map_masks(rearrange)
        hidden: Tensor = self(
            self.embed_positions(input_ids), real, context, visibility, layer_hooks
        )
        return hidden[:, first:]

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """hidden `[..., D]` -> logits `[..., V]` as the model itself computes them."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        encoded = HiddenOutput(last_hidden_state=flat)
        inputs = {"decoder_inputs_embeds": flat, "encoder_outputs": encoded, "use_cache": False}
        logits = self._logits(flat, ids, **inputs)
        return logits.view(*hidden.shape[:-1], logits.shape[-1])

    @torch.no_grad()
    def generate(
        self, condition: Features, attention: Attention = "causal", **options: Any
    ) -> Tensor:
        """Return new ids `[B, L]` for the condition, padded with `pad_id`."""
        visibility = self._visibility(attention, condition)
        self._check_generates(visibility)
        self._check_filled(condition)
        cache = self.prefill(condition, visibility)
        real = cache.mask.gather(1, real_first(cache.mask))
        self._masks_context(real)
        start = torch.tensor([self.start_ids], device=real.device).expand(len(real), -1)
        options = {"decoder_start_token_id": self.start_ids[0], **options}  # else bos is put first
        # Some models (Whisper) have their own `generate`, for the inputs of their encoders.
        ids: Tensor = GenerationMixin.generate(
            self._generator(),
            encoder_outputs=HiddenOutput(last_hidden_state=cache.state),
            attention_mask=real.long(),
            synced_gpus=False,  # see `CausalGeneration.generate`
            **{"decoder_input_ids": start, **options},
        )
        return ids[:, start.shape[1] :]

    def blocks(self) -> Sequence[nn.Module]:
        if not self.encodes_context:
            return layers_of(self.decoder)
        return [*layers_of(self.encoder), *layers_of(self.decoder)]


def _padding(mask: Tensor, queries: int, dtype: torch.dtype) -> Tensor:
    """Return the library's 2-D mask `[B, P]`; on the meta device, whose values it cannot read, a
    4-D mask of zeros."""
    if mask.device.type != "meta":
        return mask.long()  # some models compute with it
    return torch.zeros((len(mask), 1, queries, mask.shape[1]), dtype=dtype, device=mask.device)
