"""Narrower feed-forward layers and hidden states: `slice_width`."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .....modalities.base import PositiveInt
from ..context import TransformContext
from .depth import StackName
from .hidden import slice_hidden
from .maps import (
    in_features,
    is_attention,
    keep_inputs,
    keep_outputs,
    linear_maps,
    out_features,
    rows_of,
    set_counts,
)
from .structure import LayerStack, configs, find_stack

FIELDS = (
    "intermediate_size", "ffn_dim", "d_ff", "n_inner", "mlp_dim",
    "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim",
)  # fmt: skip
"""Names under which configurations keep the width of a feed-forward layer."""


class FeedForward(NamedTuple):
    """ups: D -> F, or to 2 F where gate and values are one map. down: F -> D."""

    ups: list[Any]
    down: Any


def slice_width(
    module: nn.Module,
    context: TransformContext,
    intermediate: PositiveInt | None = None,
    by: Literal["first", "norm"] = "norm",
    stack: StackName = None,
    hidden: PositiveInt | None = None,
) -> None:
    """Keep some units of the feed-forward of every layer of a stack, and some places of the hidden
    states.

    intermediate: how many units. by: `first`, the first ones (nested sub-models: MatFormer,
    Devvrit et al. 2023); `norm`, those whose weights in and out have the largest product of norms.
    A gate is cut with the values that it gates. stack: of an encoder-decoder. hidden: how many
    places of the hidden states stay, in all layers, tables, norms and the head: the first, or those
    in which tables and layers write the largest values; the widths of the heads stay.
    """
    if intermediate is None and hidden is None:
        raise ValueError("intermediate: set intermediate, hidden, or both")
    layers = find_stack(module, stack)
    if hidden is not None:
        slice_hidden(module, context, layers, hidden, by)
    if intermediate is not None:
        _slice_units(layers, context, intermediate, by)


def _slice_units(layers: LayerStack, context: TransformContext, intermediate: int, by: str) -> None:
    for i, layer in enumerate(layers.layers):
        parts = feed_forward(layer, f"layer {i} of {layers.path}")
        width = in_features(parts.down)
        if not 1 <= intermediate <= width:
            raise ValueError(f"intermediate: found {intermediate}, expected one of 1 to {width}")
        units = range(intermediate)
        if by == "norm" and context.values:
            units = _largest(parts, intermediate)
        for up in parts.ups:
            copies = out_features(up) // width
            keep_outputs(up, [c * width + unit for c in range(copies) for unit in units])
        keep_inputs(parts.down, units)
        set_counts(list(layer.modules()), FIELDS, width, intermediate)
        for config in configs(layers):
            names = [n for n in FIELDS if layers.role is None or not _is_other(n, layers.role)]
            set_counts([config], names, width, intermediate)
            if getattr(config, "n_inner", 0) is None:
                config.n_inner = intermediate


def _is_other(field: str, role: str) -> bool:
    other = "decoder" if role == "encoder" else "encoder"
    return field.startswith(other)


def feed_forward(layer: nn.Module, where: str) -> FeedForward:
    """Return the feed-forward maps of a layer. Raise ValueError if it has no pair of them."""
    maps = {name: m for name, m in linear_maps(layer).items() if not is_attention(name)}
    ups: list[Any] = list(maps.values())
    down = ups.pop() if ups else None
    message = f"{where}: its feed-forward is no D -> F -> D; there is nothing to slice"
    if down is None or not ups:
        raise ValueError(message)
    width, dim = in_features(down), out_features(down)
    fits = all(in_features(up) == dim and out_features(up) in (width, 2 * width) for up in ups)
    if not fits or any(p.ndim > 2 for p in layer.parameters()):
        raise ValueError(message)
    return FeedForward(ups, down)


def _largest(parts: FeedForward, count: int) -> Any:
    """Return the indices of the units with the largest weights, in their order."""
    down = rows_of(parts.down)  # [D, F]
    width = down.shape[1]
    score: Tensor = down.detach().float().norm(dim=0)
    for up in parts.ups:
        rows = rows_of(up).detach().float().norm(dim=1)  # [F] or [2 F]
        score = score * rows.view(-1, width).prod(0)
    chosen: Any = torch.topk(score, count).indices.sort().values.tolist()
    return chosen
