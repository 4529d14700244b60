"""An encoder-decoder of the layers of any causal language model of transformers.

The encoder is its stack with attention both ways; the decoder is the model itself, whose attentions
have an attention to the encoder's output beside them. Both are subclasses of the model's own
classes, made from its `model_type`: `llama` has `llama_both_ways` and `llama_cross_attention`,
which `EncoderDecoderModel` holds, saves and opens once `register_pair` has named them.

Legend: `B` batch, `T` positions, `D` width.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Hashable, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
)
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from ..visibility import Visibility
from .cross import CrossAttention, Source, with_cross
from .layers import first_position, layers_of, stack_of
from .masks import additive, packed_positions, sliding_windows

ENCODER, DECODER = "_both_ways", "_cross_attention"
"""Ends of the `model_type` of the two sides."""


def _add_cross(stack: Any) -> None:
    """Give the attention of every layer of a stack a cross-attention, as its configuration says."""
    numbers = dict(stack.config.cross_attention)
    path, dim = numbers.pop("path"), numbers.pop("dim")
    stack.source = Source()
    for layer in layers_of(stack):
        attention = layer.get_submodule(path)
        attention.cross_attn = CrossAttention(
            stack.source, dim, stack.config.cross_attention_hidden_size, **numbers
        )
        attention.__class__ = with_cross(cast(Hashable, type(attention)))


@functools.cache
def _cross_stack(kind: Any) -> Any:
    """Return a subclass of a class of stacks whose layers attend to `encoder_hidden_states`."""

    def __init__(self: Any, config: Any, *args: Any, **options: Any) -> None:
        kind.__init__(self, config, *args, **options)
        if not hasattr(self, "source"):
            _add_cross(self)

    def forward(
        self: Any,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Any:
        if encoder_hidden_states is not None:
            self.source.tokens, self.source.mask = encoder_hidden_states, encoder_attention_mask
        cache = past_key_values
        if isinstance(cache, EncoderDecoderCache):
            cache = cache.self_attention_cache
        inputs = {
            "input_ids": input_ids, "attention_mask": attention_mask, "past_key_values": cache,
            "inputs_embeds": inputs_embeds, "use_cache": use_cache, **options,
        }  # fmt: skip
        inputs = {name: value for name, value in inputs.items() if value is not None}
        return kind.forward(self, **_with_positions(self, kind, inputs))

    return _subclass(kind, {"__init__": __init__, "forward": forward})


@functools.cache
def _cross_decoder(kind: Any) -> Any:
    """Return a subclass of a class of causal language models over such a stack."""

    def __init__(self: Any, config: Any, *args: Any, **options: Any) -> None:
        kind.__init__(self, config, *args, **options)
        stack = stack_of(self)
        _add_cross(stack)
        stack.__class__, self.source = _cross_stack(cast(Hashable, type(stack))), stack.source

    def forward(
        self: Any,
        *args: Any,
        past_key_values: Any = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Any:
        if encoder_hidden_states is not None:
            self.source.tokens, self.source.mask = encoder_hidden_states, encoder_attention_mask
        cache = past_key_values
        if isinstance(cache, EncoderDecoderCache):
            options["past_key_values"] = cache.self_attention_cache
        elif cache is not None:
            options["past_key_values"] = cache
        output = kind.forward(self, *args, **options)
        if isinstance(output, tuple):
            return output
        names = ("loss", "logits", "hidden_states", "attentions")
        values = {name: getattr(output, name, None) for name in names}
        after = getattr(output, "past_key_values", None)
        after = cache if isinstance(cache, EncoderDecoderCache) else after
        return CausalLMOutputWithCrossAttentions(past_key_values=after, **values)

    return _subclass(kind, {"__init__": __init__, "forward": forward})


@functools.cache
def _both_ways(kind: Any) -> Any:
    """Return a subclass of a class of causal stacks in which every position sees all."""

    def forward(
        self: Any,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        inputs_embeds: Tensor | None = None,
        **options: Any,
    ) -> Any:
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        mask = attention_mask
        if mask is None or (isinstance(mask, Tensor) and mask.ndim == 2):
            real = torch.ones_like(inputs_embeds[..., 0], dtype=torch.bool)
            real = real if mask is None else mask.bool()
            row = packed_positions(real, torch.zeros_like(real))
            windows = sliding_windows(self.config, both_ways=True)
            visibility = Visibility(base="bidirectional")
            mask = additive(visibility, row, row, windows, inputs_embeds.dtype)
        inputs = {"inputs_embeds": inputs_embeds, "attention_mask": mask, **options}
        return kind.forward(self, **_with_positions(self, kind, inputs))

    return _subclass(kind, {"forward": forward})


def _with_positions(stack: Any, kind: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of a stack with the positions of its tokens where a mask of four axes
    stands, from which some models (OPT) would count them otherwise."""
    plain = isinstance(mask := inputs.get("attention_mask"), Tensor) and mask.ndim == 2
    tokens, cache = inputs.get("inputs_embeds"), inputs.get("past_key_values")
    takes = "position_ids" in inspect.signature(kind.forward).parameters
    if tokens is None or mask is None or plain or cache is not None or not takes:
        return inputs
    index = torch.arange(tokens.shape[1], device=tokens.device) + first_position(stack)
    return {"position_ids": index.expand(len(tokens), -1), **inputs}


def _subclass(kind: Any, members: dict[str, Any]) -> Any:
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **members})


def _of_family(mapping: Any, config: Any) -> Any:
    kind = mapping.get(type(config), None)
    return kind[0] if isinstance(kind, (list, tuple)) else kind


@functools.cache
def _side(model_type: str, end: str) -> Any:
    """Return the configuration class of one side, after naming it and its models."""
    family: Any = CONFIG_MAPPING[model_type.removesuffix(end)]
    config = type(family.__name__, (family,), {"model_type": model_type})
    AutoConfig.register(model_type, config, exist_ok=True)
    head = _of_family(MODEL_FOR_CAUSAL_LM_MAPPING, family())
    with torch.device("meta"):
        stack = type(stack_of(head(_smallest(family()))))
    if end == ENCODER:
        AutoModel.register(config, _typed(_both_ways(cast(Hashable, stack)), config), exist_ok=True)
    else:
        AutoModel.register(
            config, _typed(_cross_stack(cast(Hashable, stack)), config), exist_ok=True
        )
        decoder = _typed(_cross_decoder(cast(Hashable, head)), config)
        AutoModelForCausalLM.register(config, decoder, exist_ok=True)
    return config


def _smallest(config: Any) -> Any:
    text = config.get_text_config(decoder=True)
    if not getattr(text, "layer_types", None):
        text.num_hidden_layers = 1
    return config


def _typed(kind: Any, config: Any) -> Any:
    kind.config_class = config
    return kind


def register_pair(fields: Mapping[str, Any]) -> None:
    """Name the classes of both sides of an encoder-decoder's configuration to transformers."""
    for name, end in (("encoder", ENCODER), ("decoder", DECODER)):
        side = fields.get(name)
        model_type = side.get("model_type", "") if isinstance(side, Mapping) else ""
        if model_type.endswith(end) and model_type.removesuffix(end) in CONFIG_MAPPING:
            _side(model_type, end)


def pair_configs(source: Any, other: Any, cross: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the configurations of an encoder of `source` and a decoder of `other`.

    cross: the arguments of `CrossAttention`, with the `path` of the attention in a layer and `dim`.
    """
    encoder = _side(source.model_type + ENCODER, ENCODER)
    decoder = _side(other.model_type + DECODER, DECODER)
    width = source.get_text_config().hidden_size
    more = {"cross_attention": dict(cross), "cross_attention_hidden_size": width}
    more |= {"is_decoder": True, "add_cross_attention": False}  # of its own kind
    plain = [{k: v for k, v in c.to_dict().items() if k != "model_type"} for c in (source, other)]
    return encoder(**plain[0]), decoder(**{**plain[1], **more})


def is_plain_causal(model: Any) -> bool:
    """Return whether a model is the causal language model that transformers maps its type to."""
    kind = _of_family(MODEL_FOR_CAUSAL_LM_MAPPING, model.config)
    takes = inspect.signature(cast(Any, kind).forward).parameters if kind else {}
    return kind is type(model) and "inputs_embeds" in takes
