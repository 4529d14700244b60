"""Mask tokens in a model of a library, for the time of one forward.

Legend: `B` batch, `T` tokens of the picture, `D` width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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
