"""Functions added at layers of a model that somebody else wrote, for the time of one forward.

Legend: `B` batch, `T` tokens of the picture, `P` leading tokens (CLS, registers), `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...base import LayerHook


@contextmanager
def hooked(
    blocks: Sequence[nn.Module],
    layer_hooks: Mapping[int, LayerHook] | None,
    prefix: int,
    mask: Tensor | None,
) -> Iterator[None]:
    """Replace the output of each block by what its hook returns; the hook does not see the `prefix`
    leading tokens."""

    def wrap(hook: LayerHook) -> Callable[[nn.Module, Any, Any], Any]:
        def run(module: nn.Module, args: Any, output: Any) -> Any:
            whole = output[0] if isinstance(output, tuple) else output  # [B, P + T, D]
            tokens = whole[:, prefix:]
            seen = tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
            whole = torch.cat([whole[:, :prefix], hook(tokens, seen)], dim=1)
            return (whole, *output[1:]) if isinstance(output, tuple) else whole

        return run

    for number in layer_hooks or ():
        if not -len(blocks) <= number < len(blocks):
            raise ValueError(f"layer_hooks: there is no layer {number}; it has {len(blocks)}")
    handles = [
        blocks[i].register_forward_hook(wrap(hook)) for i, hook in (layer_hooks or {}).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def masked(embed: nn.Module, token_mask: Tensor | None, mask_token: Tensor) -> Iterator[None]:
    """Where `token_mask [B, T]` is True, `embed` gives `mask_token [D]` instead of the patch."""
    if token_mask is None:
        yield
        return

    def run(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        patches = output.flatten(1, -2)  # [B, T, D], from [B, h, w, D] too
        mixed = torch.where(token_mask[..., None], mask_token.to(patches.dtype), patches)
        return mixed.view(output.shape)

    handle = embed.register_forward_hook(run)
    try:
        yield
    finally:
        handle.remove()
