"""Generation: transformers' loop with its cache, or over a backbone's own `teacher_force`.

The loop without a cache is the slower one and always right. Every token is chosen from a whole
pass, so generation equals teacher forcing by construction, for rows of any length and for
architectures whose own loop takes no embeddings, counts padding as positions or keeps its state.

Legend: `B` rows, `P` positions of the context, `N` new ids so far, `V` vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationConfig, GenerationMixin, PreTrainedConfig
from transformers.modeling_outputs import CausalLMOutput

from ..modalities.base import Features, Tokenizer
from ..modalities.messages import did_you_mean
from ..modalities.submodules import ExtendedEmbedding
from .base import Backbone
from .pretrained import Pretrained
from .stack import Positions, arrange, position_ids, positions_from_mask, take
from .visibility import CAUSAL, Attention, Visibility


class UncachedGenerator(nn.Module, GenerationMixin):
    """A model for transformers' `generate` that runs a backbone again for every token."""

    main_input_name = "input_ids"
    _is_stateful = False
    _supports_cache_class = False

    def __init__(
        self, backbone: Backbone, visibility: Visibility, generation_config: GenerationConfig
    ) -> None:
        super().__init__()
        self._backbone = [backbone]  # no submodule
        self.visibility = visibility
        self.config = PreTrainedConfig(num_hidden_layers=1)
        self.generation_config = generation_config
        self.generation_config.use_cache = False

    @property
    def backbone(self) -> Backbone:
        return self._backbone[0]

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.backbone.parameters()).dtype

    def get_experts_implementation(self) -> dict[str, str]:
        return {}

    def can_generate(self) -> bool:
        return True

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor | None = None,
        context_mask: Tensor | None = None,
        visible: Tensor | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Return the inputs of `forward`; beams have their rows of each by now."""
        return {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "context_mask": context_mask,
            "visible": visible,
        }

    def forward(
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor,
        context_mask: Tensor,
        visible: Tensor | None = None,
        **options: Any,
    ) -> CausalLMOutput:
        """input_ids `[B, N]` after inputs_embeds `[B, P, D]` -> logits `[B, 1, V]` of the next.

        context_mask: bool `[B, P]`, True = real. visible: bool `[B, P, P]`, the visibility's mask.
        """
        new = input_ids.shape[1]
        context = Features(inputs_embeds, context_mask)
        ids = F.pad(input_ids, (0, 1))  # the last position is predicted
        visibility = self.visibility
        if visible is not None:
            # A new token sees what the last position of the context sees, and the new ones.
            rows = torch.cat([visible, visible[:, -1:].expand(-1, new + 1, -1)], 1)
            rows = F.pad(rows, (0, new + 1), value=True)
            visibility = visibility.map_masks(lambda _: rows)
        mask = torch.ones_like(ids, dtype=torch.bool)
        hidden = self.backbone.teacher_force(context, ids, mask, visibility)[:, -1:]
        return CausalLMOutput(logits=self.backbone.logits(hidden))


def generate_uncached(
    backbone: Any,
    condition: Features,
    visibility: Visibility,
    generation_config: GenerationConfig,
    **options: Any,
) -> Tensor:
    """Return new ids `[B, N]` after a condition. options: those of transformers' `generate`."""
    generator: Any = UncachedGenerator(backbone, visibility, generation_config)
    inputs: dict[str, Any] = {"inputs_embeds": condition.tokens}
    inputs["context_mask"] = condition.mask
    if visibility.mask is not None:
        inputs["visible"] = visibility.mask.expand(len(condition.tokens), -1, -1)
    ids: Tensor = generator.generate(**inputs, **{**options, "use_cache": False}, synced_gpus=False)
    return ids


class Generative(Pretrained):
    """A language model that writes one token after the other.

    generation: defaults of `generate`, by the names of transformers' `GenerationConfig`
    (`{suppress_tokens: [...], repetition_penalty: 1.2}`). The other options: see `Pretrained`.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        attn: Literal["sdpa", "eager"] = "sdpa",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        options: dict[str, Any] | None = None,
        generation: dict[str, Any] | None = None,
    ) -> None:
        known = GenerationConfig().to_dict()
        for key in generation or {}:
            if key not in known:
                raise ValueError(
                    f"generation.{key}: transformers' GenerationConfig has no such "
                    f"option{did_you_mean(key, known)}"
                )
        self.generation = dict(generation or {})
        super().__init__(
            tokenizer=tokenizer, name=name, config=config, attn=attn, dtype=dtype, options=options
        )

    def _check_generates(self, visibility: Visibility) -> None:
        """Raise ValueError for options that generation does not support."""
        if visibility.base == "block":
            raise ValueError(
                "block attention fills positions at once; generate takes causal or prefix"
            )
        if visibility.window or visibility.layers:
            raise ValueError("generate: takes no windows of a visibility; leave them out")

    def _generator(self) -> Any:
        """Return the model for `generate`: with the added ids, and without the generation options
        of a checkpoint, which would change with where the weights came from."""
        parts = self._extended_head()
        if self.new_rows:
            rows = self.new_rows["input"]
            parts |= {path: ExtendedEmbedding(t, rows) for path, t in self._tables().items()}
        model = self._replaced(parts)
        model.generation_config = self._generation_config()
        return model

    def _generation_config(self) -> GenerationConfig:
        return GenerationConfig(
            eos_token_id=self.tokenizer.eos_id,
            pad_token_id=self.tokenizer.pad_id,
            bos_token_id=self.tokenizer.bos_id,
            **self.generation,
        )


class CausalGeneration(Generative):
    """Generation of decoders of one stack."""

    _right_loop: bool | None = None
    _needs_mask: Callable[[Visibility, torch.device], bool]
    _masked: Callable[..., Tensor]

    @property
    def _takes_positions(self) -> bool:
        return "position_ids" in inspect.signature(self.decoder.forward).parameters

    @torch.no_grad()
    def generate(
        self, condition: Features, attention: Attention = "causal", **options: Any
    ) -> Tensor:
        """Return new ids `[B, L]` after the condition, padded with `pad_id`."""
        visibility = self._visibility(attention, condition)
        self._check_generates(visibility)
        self._check_filled(condition)
        beams = options.get("num_beams", 1) > 1 and self.model._is_stateful  # none reorders a state
        if beams or self._generates_uncached(condition, visibility):
            condition = condition.replace(tokens=condition.tokens.to(self.dtype))
            settings = self._generation_config()
            return generate_uncached(self, condition, visibility, settings, **options)
        return self._generate_cached(condition, visibility, **options)

    def _generate_cached(
        self, condition: Features, visibility: Visibility, **options: Any
    ) -> Tensor:
        """Return new ids `[B, L]` by the library's own loop, rows padded on the left."""
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
        # Of a sharded model the library would wait for the other processes at each token.
        ids: Tensor = self._generator().generate(
            inputs_embeds=tokens, attention_mask=mask.long(), synced_gpus=False, **options
        )
        return ids

    def _generates_uncached(self, condition: Features, visibility: Visibility) -> bool:
        """Return whether the library's own loop would differ from teacher forcing: it
        takes no embeddings, keeps the state of padding, or counts padding as positions."""
        prepare = inspect.signature(self.model.prepare_inputs_for_generation).parameters
        if "inputs_embeds" not in prepare or self._first_position:
            return True
        is_causal = visibility.is_named and visibility.base == "causal"
        if not (is_causal or self._takes_positions):
            return True
        was_tried = self.trial is not None
        skips = self.trial.skips_padding if self.trial is not None else self._takes_positions
        ragged = not bool(condition.mask.all())
        if not skips:
            return ragged or (was_tried and self.model._is_stateful)
        return ragged and not self._loop_is_right()

    def _loop_is_right(self) -> bool:
        """Return whether the library's loop chooses what teacher forcing does in two short rows of
        different lengths; tried once, on the model itself."""
        if self._right_loop is None:
            self._right_loop = True  # while it is tried
            ids = torch.arange(8, device=self.table.weight.device).view(2, 4)
            mask = torch.arange(4, device=ids.device) < torch.tensor([[4], [2]], device=ids.device)
            context = Features(self.embed(ids), mask)
            new = self._generate_cached(
                context, CAUSAL, max_new_tokens=4, do_sample=False, eos_token_id=None
            )
            hidden = self.teacher_force(context, new, torch.ones_like(new, dtype=torch.bool))
            logits = self.logits(hidden).float()
            gap = logits.amax(-1) - logits.gather(-1, new[..., None])[..., 0]
            allowed = 1e-3 if self.dtype == torch.float32 else 0.1
            self._right_loop = bool((gap <= allowed * logits.std(-1)).all())
        return self._right_loop

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
