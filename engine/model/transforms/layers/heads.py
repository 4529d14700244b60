"""Fewer attention heads: `prune_heads` (Michel et al., "Are Sixteen Heads Really Better than One?",
2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .....modalities.base import PositiveInt
from ..context import TransformContext
from .depth import StackName
from .maps import (
    in_features,
    keep_inputs,
    keep_outputs,
    linear_maps,
    out_features,
    rows_of,
    set_counts,
)
from .structure import LayerStack, configs, find_stack

QUERY = ("q_proj", "query", "q", "q_lin", "wq")
KEY = ("k_proj", "key", "k", "k_lin", "wk")
VALUE = ("v_proj", "value", "v", "v_lin", "wv")
FUSED = ("c_attn", "qkv", "Wqkv", "qkv_proj")
OUTPUT = ("o_proj", "out_proj", "o", "out_lin", "wo", "Wo", "c_proj", "proj", "dense")
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "encoder_attention_heads",
         "decoder_attention_heads")  # fmt: skip
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
SIZES = ("all_head_size", "inner_dim", "split_size", "attn_dim")
HEAD_DIM = ("head_dim", "attention_head_size", "key_value_proj_dim", "d_kv")


@dataclass
class Attention:
    """The maps of one attention, and its numbers. fused: q, k and v are one map, in this order."""

    where: str
    module: nn.Module
    query: Any
    key: Any
    value: Any
    output: Any
    head_dim: int
    heads: int
    kv_heads: int

    @property
    def fused(self) -> bool:
        return self.query is self.key


def prune_heads(
    module: nn.Module,
    context: TransformContext,
    heads: list[tuple[int, int]] | None = None,
    keep: PositiveInt | None = None,
    stack: StackName = None,
) -> None:
    """Remove attention heads of the layers of a stack.

    heads: `[layer, head]` of each that is removed. keep: in its place, how many of every layer
    stay: those whose output map has the largest norms. Of grouped queries, a group loses all of its
    heads or as many as the other groups. stack: of an encoder-decoder. A pruned model computes what
    the whole one does with the outputs of these heads zero.
    """
    layers = find_stack(module, stack)
    if (heads is None) == (keep is None):
        raise ValueError("heads: set either heads: [[0, 1], [2, 3]] or keep: 8")
    attentions = [attention_of(layer, i, layers) for i, layer in enumerate(layers.layers)]
    for i, _ in heads or ():
        if not 0 <= i < len(attentions):
            raise ValueError(f"heads: found layer {i}; {layers.path} has {len(attentions)} layers")
    kept_heads = []
    for i, attention in enumerate(attentions):
        removed = {head for layer, head in heads or () if layer == i}
        if unknown := removed - set(range(attention.heads)):
            raise ValueError(f"heads: found {min(unknown)}; layer {i} has {attention.heads} heads")
        chosen = [head for head in range(attention.heads) if head not in removed]
        kept_heads.append(chosen if keep is None else _largest(attention, keep, context.values))
    uniform = len({len(chosen) for chosen in kept_heads}) == 1
    for attention, chosen in zip(attentions, kept_heads, strict=True):
        _prune(attention, chosen, layers, uniform)
    if uniform:
        _reconfigure(layers, attentions[0], kept_heads[0])


def attention_of(layer: nn.Module, index: int, stack: LayerStack) -> Attention:
    """Return the self-attention of a layer. Raise ValueError for one of another form."""
    where = f"layer {index} of {stack.path}"
    if any(isinstance(m, nn.Embedding) for m in stack.container.modules()):
        raise ValueError(f"{where}: its heads have biases of positions, which all layers share")
    for name, module in layer.named_modules():
        cross = any(word in name.lower() for word in ("cross", "encoder_attn", "encdec"))
        if cross or not linear_maps(module) or isinstance(module, nn.MultiheadAttention):
            continue
        maps = {path.rpartition(".")[2]: m for path, m in linear_maps(module).items()}
        inputs = _inputs(maps)
        outputs = [maps[key] for key in OUTPUT if key in maps]
        if (
            inputs is None
            or len(linear_maps(module)) != len({id(m) for m in inputs}) + 1
            or len(outputs) != 1
        ):
            continue
        return _numbers(where, module, *inputs, outputs[0], stack)
    raise ValueError(f"{where}: it has no attention with separate maps of queries, keys and values")


def _inputs(maps: dict[str, Any]) -> tuple[Any, Any, Any] | None:
    fused = next((maps[name] for name in FUSED if name in maps), None)
    if fused is not None:
        return fused, fused, fused
    sides = [next((maps[n] for n in names if n in maps), None) for names in (QUERY, KEY, VALUE)]
    return (sides[0], sides[1], sides[2]) if all(s is not None for s in sides) else None


def _numbers(
    where: str, module: nn.Module, query: Any, key: Any, value: Any, output: Any, stack: LayerStack
) -> Attention:
    around: list[Any] = [*module.modules(), *configs(stack)]

    def first(names: tuple[str, ...]) -> int | None:
        values = (getattr(each, name, None) for each in around for name in names)
        return next((v for v in values if isinstance(v, int) and not isinstance(v, bool)), None)

    width = in_features(output)
    heads = first(HEADS)
    size = first(HEAD_DIM) or (None if not heads else width // heads)
    rows = out_features(query) if query is not key else out_features(query) - width
    keys = out_features(key) if query is not key else rows // 2
    if not size or width % size or keys % size or (query is not key and rows != width):
        raise ValueError(f"{where}: the maps of its heads have another form, and are not cut")
    if (width // size) % (keys // size) or (query is key and 2 * keys + width != rows + width):
        raise ValueError(f"{where}: the maps of its heads have another form, and are not cut")
    return Attention(where, module, query, key, value, output, size, width // size, keys // size)


def _largest(attention: Attention, keep: int, values: bool) -> list[int]:
    groups, size = attention.kv_heads, attention.heads // attention.kv_heads
    if not 1 <= keep <= attention.heads or keep % groups:
        each = "" if groups == 1 or size == 1 else f", a multiple of its {groups} groups"
        if size > 1 or not 1 <= keep <= attention.heads:
            raise ValueError(f"keep: found {keep}, expected one of 1 to {attention.heads}{each}")
    score: Tensor = torch.zeros(attention.heads)
    if values:
        columns = rows_of(attention.output).detach().float()  # [D, heads * size]
        score = columns.view(len(columns), attention.heads, -1).square().sum((0, 2))
    if size == 1:
        return sorted(torch.topk(score, keep).indices.tolist())
    best = score.view(groups, size).topk(keep // groups).indices
    return sorted((best + torch.arange(groups)[:, None] * size).flatten().tolist())


def _prune(attention: Attention, kept_heads: list[int], stack: LayerStack, uniform: bool) -> None:
    """Keep some heads of an attention: their rows of q, k and v, and their columns of o."""
    before, size = attention.heads, attention.head_dim
    if len(kept_heads) == before:
        return
    kv = _kv_heads(attention, kept_heads)
    queries = _expand(kept_heads, size)
    keys = _expand(kv, size)
    if attention.fused:
        width, inner = before * size, attention.kv_heads * size
        rows = [*queries, *(width + i for i in keys), *(width + inner + i for i in keys)]
        if not uniform and not hasattr(attention.module, HEADS[0]) and attention.kv_heads > 0:
            raise ValueError(
                f"heads: {attention.where} splits one map of queries, keys and values by numbers "
                "that all layers share; remove as many of every layer"
            )
        keep_outputs(attention.query, rows)
    else:
        keep_outputs(attention.query, queries)
        keep_outputs(attention.key, keys)
        keep_outputs(attention.value, keys)
    keep_inputs(attention.output, queries)
    for name, module in attention.module.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim == 1 and name.rpartition(".")[2] in (
            "q_norm", "k_norm",
        ):  # fmt: skip
            chosen = queries if "q_norm" in name else keys
            if len(weight) not in (size, before * size, attention.kv_heads * size):
                raise ValueError(f"{attention.where}: {name} has another form, and is not cut")
            if len(weight) != size:
                module.weight = nn.Parameter(weight.detach()[chosen], weight.requires_grad)
    modules: list[Any] = list(attention.module.modules())
    set_counts(modules, HEADS, before, len(kept_heads))
    set_counts(modules, KV_HEADS, attention.kv_heads, len(kv))
    set_counts(modules, ("num_key_value_groups", "n_rep"), before // attention.kv_heads,
               len(kept_heads) // len(kv))  # fmt: skip
    sizes = (*SIZES, "embed_dim") if attention.fused else SIZES
    set_counts(modules, sizes, before * size, len(kept_heads) * size)


def _expand(heads: list[int], size: int) -> list[int]:
    return [head * size + i for head in heads for i in range(size)]


def _kv_heads(attention: Attention, kept_heads: list[int]) -> list[int]:
    """Return the heads of keys and values that stay. Raise ValueError if groups of queries come
    apart."""
    size = attention.heads // attention.kv_heads
    by_group = [sum(head // size == g for head in kept_heads) for g in range(attention.kv_heads)]
    if not kept_heads or len({n for n in by_group if n}) > 1:
        raise ValueError(
            f"heads: {attention.where} shares keys and values among {size} heads each; remove all "
            "heads of a group, or as many of every group, and leave some"
        )
    return [group for group, count in enumerate(by_group) if count]


def _reconfigure(stack: LayerStack, attention: Attention, kept_heads: list[int]) -> None:
    """Write a number of heads that all layers have into the configuration."""
    if len(kept_heads) == attention.heads:
        return
    kv = _kv_heads(attention, kept_heads)
    for config in configs(stack):
        if not any(getattr(config, name, None) for name in HEAD_DIM):
            config.head_dim = attention.head_dim  # or the number of heads would decide it
        names = [n for n in HEADS if stack.role is None or _of(n, stack.role)]
        set_counts([config], [config.attribute_map.get(n, n) for n in names], attention.heads,
                   len(kept_heads))  # fmt: skip
        set_counts([config], KV_HEADS, attention.kv_heads, len(kv))


def _of(field: str, role: str) -> bool:
    other = "decoder" if role == "encoder" else "encoder"
    return not field.startswith(other)
