"""Attention as a state space: `attention_to_state_space` (mmMamba: Liao et al. 2025)."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from .....backbones.stack import StateSpaceMixer, try_stack
from .....modalities.base import PositiveInt
from ..context import TransformContext
from .heads import attention_of
from .maps import in_features
from .structure import find_stack


def attention_to_state_space(
    module: nn.Module,
    context: TransformContext,
    keep_every: PositiveInt | None = None,
    gate: bool = True,
) -> None:
    """Exchange the attentions of a causal decoder for state-space layers that begin with their maps
    of queries, keys, values and outputs.

    keep_every: layers 0, n, 2 n, ... keep their attention (a hybrid; mmMamba: 4); None exchanges
    all, so that the memory of decoding does not grow. gate: whether the new layers have a gate.
    mmMamba trains the new parameters first (`train_only: {pattern: "[.](conv|decay|gate|norm)"}`),
    then the layers, then all.
    """
    if keep_every is not None and keep_every < 2:
        raise ValueError(f"keep_every: found {keep_every}, expected 2 or more")
    layers = find_stack(module)
    stack: Any = next((o for o in layers.owners if isinstance(o, PreTrainedModel)), None)
    trial = None if stack is None else try_stack(stack, stack.config._attn_implementation)
    if trial is None or not trial.is_causal:
        raise ValueError(f"{type(module).__name__} has no causal attention that could be exchanged")
    for i, layer in enumerate(layers.layers):
        if keep_every is not None and i % keep_every == 0:
            continue
        attention = attention_of(layer, i, layers)
        takes = inspect.signature(attention.module.forward).parameters
        if attention.fused or "past_key_values" not in takes:
            raise ValueError(
                f"{attention.where} has no causal attention with separate maps of queries, keys "
                "and values"
            )
        mixer = StateSpaceMixer(
            attention.query,
            attention.key,
            attention.value,
            attention.output,
            heads=attention.heads,
            kv_heads=attention.kv_heads,
            head_dim=attention.head_dim,
            dim=in_features(attention.query),
            layer_idx=i,
            gate=gate,
        )
        path = next(name for name, inner in layer.named_modules() if inner is attention.module)
        parent, _, name = path.rpartition(".")
        setattr(layer.get_submodule(parent), name, mixer)
