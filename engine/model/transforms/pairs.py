"""A language model of one stack as an encoder and a decoder: `to_encoder_decoder`.

The target is a class of transformers whose layers have the places of the source's: the pairs of
models with cross-attention (BERT's kind: Rothe et al. 2020), or T5Gemma for the layers of Gemma 2
(Zhang et al. 2025). Each place of the target takes the tensor of the source that plays its role.
Of any other causal language model the layers themselves are taken, and cross-attention stands
beside the decoder's self-attention (`backbones.stack.pair_configs`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    T5GemmaConfig,
)

from ....backbones.stack import CrossAttention, stack_of
from .causal_pairs import pair_of_layers, seed_cross
from .context import TransformContext
from .layers import attention_of, find_stack
from .vocabulary import network

State = Mapping[str, Tensor]
CROSS = {
    "crossattention": "attention",
    "cross_attn": "self_attn",
    "encoder_attn": "self_attn",
}
"""Part of a name of cross-attention -> that of the self-attention which it is seeded from."""


def to_encoder_decoder(
    module: nn.Module,
    context: TransformContext,
    decoder: str | None = None,
    interleave: bool = False,
) -> nn.Module:
    """Return an encoder-decoder whose encoder, decoder and cross-attention begin as the layers of a
    language model.

    decoder: the folder of another model, of another size perhaps, for the decoder (T5Gemma's
    unbalanced pairs). Cross-attention is copied from the decoder's self-attention where the sizes
    match, and begins at random otherwise; where the model has no class with a place for it
    (llama, qwen3), its output is added to that of the self-attention, and it has no positions.
    interleave: the decoder has half of the layers; layer i takes its self-attention from layer 2 i
    of the source, and its cross-attention and feed-forward from layer 2 i + 1 (DeltaLM: Ma et al.
    2021). The encoder attends both ways.
    """
    if not context.values:
        raise ValueError(
            "it makes another model; run `sensorium convert` on the checkpoint's folder"
        )
    source = network(module)
    other = source
    if decoder is not None:
        assert context.load is not None
        other = network(context.load(decoder))
    for model in (source, other):
        if model.config.is_encoder_decoder:
            raise ValueError(f"{model.config.model_type} is an encoder-decoder already")
    if other.config.vocab_size != source.config.vocab_size:
        raise ValueError(
            f"decoder: embeds {other.config.vocab_size} tokens, the encoder "
            f"{source.config.vocab_size}; swap_vocabulary first"
        )
    depth = len(find_stack(other))
    if interleave and depth % 2:
        raise ValueError(f"interleave: takes layers by two, found {depth}")
    count = depth // 2 if interleave else depth
    reasons = []
    for make in (_pair, _t5gemma, pair_of_layers):
        try:
            target = make(source, other, count)
        except ValueError as error:
            reasons.append(str(error))
            continue
        with torch.no_grad():
            _seed(target, source, other, interleave)
        return target.eval()
    raise ValueError(
        f"{'; '.join(reasons)}; take a causal language model with separate maps of queries, keys "
        "and values (llama, qwen3, gpt2), or bert, roberta, electra"
    )


def _pair(source: Any, other: Any, count: int) -> Any:
    """Return a pair of two models, the second with cross-attention."""
    config = copy.deepcopy(other.config)
    kind = config.model_type
    if not hasattr(config, "is_decoder") or not hasattr(config, "add_cross_attention"):
        raise ValueError(f"{kind} has no layers with cross-attention")
    config.is_decoder, config.add_cross_attention = True, True
    config.num_hidden_layers = count
    encoder = copy.deepcopy(source.config)
    encoder.is_decoder = encoder.add_cross_attention = False
    plain = type(AutoModel.from_config(_tiny(encoder)))
    if not any(word in name for name in _names(AutoModel.from_config(_tiny(config)))
               for word in CROSS):  # fmt: skip
        raise ValueError(f"{kind} has no layers with cross-attention")
    if _is_causal(plain, encoder):
        raise ValueError(f"{kind} attends causally as an encoder too")
    pair = EncoderDecoderConfig.from_encoder_decoder_configs(encoder, config)
    model: Any = EncoderDecoderModel(pair)
    start = [getattr(config, f"{n}_token_id", None) for n in ("bos", "cls", "pad")]
    model.config.decoder_start_token_id = next((i for i in start if i is not None), 0)
    model.config.pad_token_id = config.pad_token_id
    model.config.vocab_size = config.vocab_size
    return model.to(_dtype(source))


def _tiny(config: Any) -> Any:
    small = copy.deepcopy(config)
    small.num_hidden_layers = 1
    return small


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


@torch.no_grad()
def _is_causal(family: Any, config: Any) -> bool:
    """Return whether a model of one layer leaves the first position alone when the last changes."""
    model = family(_tiny(config)).eval()
    ids = torch.tensor([[3, 4, 5], [3, 4, 6]]) % config.vocab_size
    hidden = model(input_ids=ids).last_hidden_state[:, 0]
    return bool(torch.equal(hidden[0], hidden[1]))


def _t5gemma(source: Any, other: Any, count: int) -> Any:
    """Return a T5Gemma of the sizes of two models, if it has the places of their layers."""
    fields = T5GemmaConfig().encoder.to_dict().keys() - {"model_type", "architectures"}
    parts: list[dict[str, Any]] = [
        {k: v for k, v in model.config.to_dict().items() if k in fields}
        for model in (source, other)
    ]
    parts[1] |= {"num_hidden_layers": count, "layer_types": parts[1]["layer_types"][:count]
                 if parts[1].get("layer_types") else None}  # fmt: skip
    try:
        config = T5GemmaConfig(
            encoder={**parts[0], "is_decoder": False},
            decoder={**parts[1], "is_decoder": True},
            tie_word_embeddings=source.config.tie_word_embeddings,
            vocab_size=source.config.vocab_size,
        )
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            setattr(config, name, getattr(other.config, name))
        with torch.device("meta"):  # the default sizes are those of 2 billion
            outline: Any = AutoModelForSeq2SeqLM.from_config(config, attn_implementation="eager")
    except (KeyError, TypeError) as error:  # fields of the same names with other contents
        raise ValueError(f"{source.config.model_type} has other layers than T5Gemma") from error
    stack = find_stack(outline, "encoder").layers[0]
    lists = (dict(stack.named_parameters()), dict(find_stack(source).layers[0].named_parameters()))
    if len(lists[0]) != len(lists[1]) or not _maps_all(lists[0], lists[1]):
        raise ValueError(f"{source.config.model_type} has other layers than T5Gemma")
    target: Any = AutoModelForSeq2SeqLM.from_config(config, attn_implementation="eager")
    return target.to(_dtype(source))


def _dtype(model: Any) -> torch.dtype:
    dtype: torch.dtype = next(model.parameters()).dtype
    return dtype


def _maps_all(target: State, source: State) -> bool:
    roles = _roles(target, source)
    return all(
        name in roles and source[roles[name]].shape == value.shape for name, value in target.items()
    )


def _roles(target: State, source: State) -> dict[str, str]:
    """Return for each tensor of a layer the one of a source's layer that plays its role: by its
    name, cross-attention as self-attention; norms that are called otherwise by their order."""
    plain = [name for name in target if not any(word in name for word in CROSS)]
    norms = [name for name in plain if "norm" in name.lower()]
    source_norms = [name for name in source if "norm" in name.lower()]
    by_order = (
        dict(zip(norms, source_norms, strict=False)) if len(norms) == len(source_norms) else {}
    )
    roles: dict[str, str] = {}
    for name in target:
        self_name = name
        for word, place in CROSS.items():
            self_name = self_name.replace(word, place)
        if set(norms) != set(source_norms) and self_name in by_order:
            roles[name] = by_order[self_name]
        elif self_name in source:
            roles[name] = self_name
    return roles


def _seed(target: Any, source: Any, other: Any, interleave: bool) -> None:
    """Copy the layers, tables, norms and the output layer of two models into a pair."""
    encoder, decoder = find_stack(target, "encoder"), find_stack(target, "decoder")
    for layer, old in zip(encoder.layers, find_stack(source).layers, strict=True):
        _fill(layer, dict(old.state_dict()), lambda name: True)
    stack = find_stack(other)
    layers = stack.layers
    for i, layer in enumerate(decoder.layers):
        first, second = (layers[2 * i], layers[2 * i + 1]) if interleave else (layers[i],) * 2
        _fill(layer, dict(first.state_dict()), _of_self)
        _fill(layer, dict(second.state_dict()), lambda name: not _of_self(name))
        for cross in (m for m in layer.modules() if isinstance(m, CrossAttention)):
            seed_cross(cross, attention_of(second, i, stack))
    outside = {**source.base_model.state_dict(), **stack_of(source).state_dict()}
    _fill_rest(target.get_encoder(), outside, encoder.container)
    decoder_model = getattr(target, "decoder", None) or target.get_decoder()
    whole = other if hasattr(target, "decoder") else other.base_model
    _fill_rest(decoder_model, whole.state_dict(), decoder.container)
    head, old_head = target.get_output_embeddings(), other.get_output_embeddings()
    if head is not None and old_head is not None:
        head.load_state_dict(old_head.state_dict())


def _of_self(name: str) -> bool:
    """Return whether a tensor of a layer belongs to its self-attention, norms included."""
    in_attention = any(word in name for word in ("attention", "attn"))
    return in_attention and not any(word in name for word in CROSS)


def _fill(layer: nn.Module, source: State, chosen: Callable[[str], bool]) -> None:
    state = layer.state_dict()
    roles = _roles(state, source)
    for name, value in state.items():
        if not chosen(name):
            continue
        role = roles.get(name)
        if role is not None and source[role].shape == value.shape:
            value.copy_(source[role])
        elif not any(word in name for word in CROSS):
            raise ValueError(
                f"{type(layer).__name__} has {name}, which the source has no place for"
            )


def _fill_rest(target: nn.Module, state: State, layers: nn.Module) -> None:
    """Copy the modules outside the layers: tables, norms, heads."""
    within = {id(tensor) for tensor in (*layers.parameters(), *layers.buffers())}
    for name, tensor in (*target.named_parameters(), *target.named_buffers()):
        if id(tensor) in within:
            continue
        matches = [k for k in (name, name.partition(".")[2]) if k in state]
        if matches and state[matches[0]].shape == tensor.shape:
            tensor.copy_(state[matches[0]])
