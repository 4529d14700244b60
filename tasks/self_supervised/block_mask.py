"""Masks of contiguous blocks over a grid of tokens, of any number of axes.

Zhou et al., "iBOT", 2022; Bao et al., "BEiT" (block-wise masking), 2022. Drawn by torch's CPU
generator, so that a step's masks follow from its seed, and their number is known on any device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ATTEMPTS = 10
"""Blocks that are tried before single tokens fill the rest."""


def block_mask(grid: Sequence[int], count: int) -> Tensor:
    """Return `[prod(grid)]` bool with exactly `count` True: random boxes, the rest single
    tokens."""
    mask = torch.zeros(tuple(grid), dtype=torch.bool)
    for _ in range(ATTEMPTS):
        remaining = count - int(mask.sum())
        if remaining <= 0:
            break
        box = mask[_box(grid, remaining)]
        if int((~box).sum()) <= remaining:
            box.fill_(True)
    flat = mask.flatten()
    free = (~flat).nonzero().flatten()
    missing = count - int(flat.sum())
    flat[free[torch.randperm(len(free))[:missing]]] = True
    return flat


def _box(grid: Sequence[int], tokens: int) -> tuple[slice, ...]:
    """Return a random box of at most `tokens` tokens, with random side ratios."""
    volume = 1 + int(torch.randint(tokens, ()))
    mean_side = volume ** (1 / len(grid))
    slices = []
    for size in grid:
        wide = min(
            size, max(1, int(mean_side * math.exp(float(torch.empty(()).uniform_(-0.6, 0.6)))))
        )
        low = int(torch.randint(size - wide + 1, ()))
        slices.append(slice(low, low + wide))
    return tuple(slices)


def block_masks(grid: Sequence[int], rows: int, share: float, ratio: tuple[float, float]) -> Tensor:
    """Return `[rows, prod(grid)]`: a fraction of the rows has a fraction of its tokens masked,
    drawn evenly from `ratio`; the other rows have none."""
    tokens = math.prod(grid)
    masks = torch.zeros(rows, tokens, dtype=torch.bool)
    for row in torch.randperm(rows)[: math.ceil(rows * share)].tolist():
        part = float(torch.empty(()).uniform_(*ratio))
        masks[row] = block_mask(grid, max(1, min(tokens, round(part * tokens))))
    return masks
