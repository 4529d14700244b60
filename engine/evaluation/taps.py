"""Taps on the feed-forwards of a running network: muted, or their activations changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ..model.transforms.layers import feed_forward


@contextlib.contextmanager
def muted_feed_forwards(blocks: Sequence[nn.Module], layers: Collection[int]) -> Iterator[None]:
    """Within it the feed-forward of some layers adds nothing. Raise ValueError for a layer that has
    none of the form D -> F -> D."""
    downs = [feed_forward(blocks[layer], f"layer {layer}").down for layer in layers]
    handles = [down.register_forward_hook(lambda *call: call[-1] * 0) for down in downs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def hooked_activations(
    blocks: Sequence[nn.Module], hook: Callable[[int, Tensor], Tensor]
) -> Iterator[None]:
    """Within it the activations `[..., F]` of each layer's feed-forward go through
    `hook(layer, values)` before the map back to the width of the model."""

    def before(layer: int) -> Callable[[Any, Any], Any]:
        return lambda module, args: (hook(layer, args[0]), *args[1:])

    handles = [
        feed_forward(block, f"layer {layer}").down.register_forward_pre_hook(before(layer))
        for layer, block in enumerate(blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
