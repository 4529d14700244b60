"""A mask over a grid of tokens: how much of each token's extent it covers.

Legend: `B` rows, `n` axes, `U` places of the mask's own grid, `T` tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..modalities.base import Features
from ._places import laid, to_world

POINTS = 4
"""Places that are looked up along each axis of a token."""


def cover(mask: Features, tokens: Features, who: str) -> Tensor:
    """mask: a token a place `[B, U, 1]`; tokens `[B, T, D]` -> `[B, T]` shares from 0 to 1.

    Raises ValueError where one of them does not say where it lies; `who` asks.
    """
    there, here = to_world(mask, who), to_world(tokens, who)
    grid, own = tokens.grid or (), mask.grid or ()
    values = ((mask.tokens[..., 0] > 0.5) & mask.mask).float().unflatten(1, own)[:, None]
    finer = torch.eye(len(grid) + 1, device=here.device)
    finer[:-1, :-1] /= POINTS
    finer[:-1, -1] = (1 / POINTS - 1) / 2
    fine = tuple(size * POINTS for size in grid)
    found = laid(values, there, here @ finer, fine)[:, 0]  # [B, *fine]
    for axis, size in enumerate(grid):
        found = found.unflatten(axis + 1, (size, POINTS)).mean(axis + 2)
    return found.flatten(1)
