"""The layers of two causal language models as a pair, for `to_encoder_decoder`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import EncoderDecoderConfig, EncoderDecoderModel

from ....backbones.stack import CrossAttention, is_plain_causal, pair_configs, try_stack
from .layers import Attention, attention_of, find_stack, in_features, rows_of


def pair_of_layers(source: Any, other: Any, count: int) -> Any:
    """Return a pair of the layers of two causal models, with cross-attention of the same heads."""
    for model in (source, other):
        stack = model.base_model
        trial = try_stack(stack, stack.config._attn_implementation)
        if not is_plain_causal(model) or trial is None or not trial.is_causal:
            raise ValueError(f"{model.config.model_type} is no causal language model")
        if not trial.obeys_masks:
            raise ValueError(f"{model.config.model_type} takes no mask, so no encoder can be made")
    stack = find_stack(other)
    attentions = [attention_of(layer, i, stack) for i, layer in enumerate(stack.layers)]
    first = attentions[0]
    path = next(n for n, m in stack.layers[0].named_modules() if m is first.module)
    dim = in_features(first.query)
    biases = (first.query, first.key, first.value, first.output)
    cross = {
        "path": path, "dim": dim, "heads": first.heads, "kv_heads": first.kv_heads,
        "head_dim": first.head_dim, "bias": [m.bias is not None for m in biases],
        "scale": float(getattr(first.module, "scaling", first.head_dim**-0.5)),
    }  # fmt: skip
    encoder, decoder = pair_configs(source.config, other.config, cross)
    if count != len(stack):
        decoder.num_hidden_layers = count
        if getattr(decoder, "layer_types", None):
            decoder.layer_types = decoder.layer_types[:count]
    pair: Any = EncoderDecoderModel(
        EncoderDecoderConfig(encoder=encoder.to_dict(), decoder=decoder.to_dict())
    )
    start = [getattr(decoder, f"{n}_token_id", None) for n in ("bos", "pad", "eos")]
    pair.config.decoder_start_token_id = next((i for i in start if i is not None), 0)
    pair.config.pad_token_id = decoder.pad_token_id
    pair.config.vocab_size = decoder.vocab_size
    return pair.to(next(source.parameters()).dtype)


def seed_cross(cross: CrossAttention, attention: Attention) -> None:
    """Copy the maps of an attention into a cross-attention where their sizes match."""
    inner = attention.heads * attention.head_dim
    ends = [inner, inner + attention.kv_heads * attention.head_dim, None]
    maps = (cross.q_proj, cross.k_proj, cross.v_proj)
    for i, (target, old) in enumerate(
        zip(maps, (attention.query, attention.key, attention.value), strict=True)
    ):
        rows = slice(ends[i - 1] if i else 0, ends[i]) if attention.fused else slice(None)
        _copy_map(target, rows_of(old)[rows], None if old.bias is None else old.bias[rows])
    _copy_map(cross.o_proj, rows_of(attention.output), attention.output.bias)


def _copy_map(target: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    if target.weight.shape == weight.shape:
        target.weight.copy_(weight)
        if bias is not None:
            target.bias.copy_(bias)
