"""Fewer or more layers: `keep_layers`, `upscale_depth`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

from torch import nn

from .....modalities.base import PositiveInt
from ..context import TransformContext
from .structure import LayerStack, find_stack, set_layers

StackName = Literal["encoder", "decoder"] | None


def keep_layers(
    module: nn.Module,
    context: TransformContext,
    layers: list[int] | None = None,
    every: PositiveInt | None = None,
    stack: StackName = None,
) -> None:
    """Keep some layers of a stack, in this order; the others are removed.

    layers: their indices, from 0 or from the end (-1). every: the first of every n in place of
    indices (DistilBERT takes every second one: Sanh et al. 2019). stack: of an encoder-decoder.
    """
    layers_of = find_stack(module, stack)
    if (layers is None) == (every is None):
        raise ValueError("layers: set either layers: [0, 2, ...] or every: 2")
    if every is not None:
        if every < 1:
            raise ValueError(f"every: found {every}, expected 1 or more")
        layers = list(range(0, len(layers_of), every))
    indices = _checked(layers or [], layers_of, "layers")
    if len(set(indices)) < len(indices):
        raise ValueError("layers: one appears twice; upscale_depth repeats layers")
    _arrange(layers_of, indices)


def upscale_depth(
    module: nn.Module,
    context: TransformContext,
    drop: PositiveInt | None = None,
    layers: list[int] | None = None,
    stack: StackName = None,
) -> None:
    """Repeat layers of a stack.

    drop: two copies of the stack of n layers one after the other, without the last `drop` of the
    first and the first `drop` of the second: 2 (n - drop) layers (SOLAR: Kim et al. 2023; n / 2
    changes nothing). layers: the indices in their new order in its place; those that are listed
    twice are copied ([0, 1, 2, 1, 2, 3]: Yi, 2024). stack: of an encoder-decoder.
    """
    layers_of = find_stack(module, stack)
    if (layers is None) == (drop is None):
        raise ValueError("drop: set either drop: 8 or layers: [0, 1, 1, 2, ...]")
    count = len(layers_of)
    if drop is not None:
        if not 0 <= drop < count:
            raise ValueError(f"drop: found {drop}, expected one of 0 to {count - 1}")
        layers = [*range(count - drop), *range(drop, count)]
    indices = _checked(layers or [], layers_of, "layers")
    _arrange(layers_of, indices)


def _checked(layers: Sequence[int], stack: LayerStack, where: str) -> list[int]:
    """Return indices from 0. Raise ValueError for one that is not there, and for none."""
    count = len(stack)
    if not layers:
        raise ValueError(f"{where}: found none, expected at least one of {count} layers")
    for layer in layers:
        if not -count <= layer < count:
            raise ValueError(f"{where}: found {layer}; {stack.path} has {count} layers")
    return [layer % count for layer in layers]


def _arrange(stack: LayerStack, indices: Sequence[int]) -> None:
    first = stack.only_first
    if first and 0 in indices[1:]:
        raise ValueError(
            f"layers: layer 0 of {stack.path} alone holds {first}; it can only be first"
        )
    if first and indices[0] != 0:
        raise ValueError(f"layers: layer 0 of {stack.path} alone holds {first}; keep it first")
    seen: set[int] = set()
    chosen = []
    for index in indices:
        layer = stack.layers[index]
        chosen.append(copy.deepcopy(layer) if index in seen else layer)
        seen.add(index)
    set_layers(stack, chosen, indices)
