"""Masking, additive masks, position embeddings and pooled Features for several connectors.

Legend: `B` batch, `T` tokens, `D` width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..modalities.base import Features

# exp(-1e4) is 0 in every precision and -1e4 is finite in every precision: a row without any
# real token has an even softmax instead of the NaN that -inf would give.
MASKED = -1e4


def mask_tokens(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return tokens `[B, T, D]` with zeros where mask `[B, T]` is False."""
    return tokens.masked_fill(~mask.unsqueeze(-1), 0)


def as_sequence(features: Features) -> tuple[Tensor, Tensor]:
    """tokens `[B, T, D]` and mask `[B, T]` with the padding on the right, and zero: that of a
    volume lies between its tokens, and depends on the other samples of the batch."""
    tokens, mask = mask_tokens(features.tokens, features.mask), features.mask
    if features.grid is None or len(features.grid) == 1:
        return tokens, mask
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    return tokens.gather(1, order[..., None].expand_as(tokens)), mask.gather(1, order)


def additive(mask: Tensor, like: Tensor) -> Tensor:
    """Return mask `[B, T]` as additive floats of the dtype of `like`: 0 = real, a large negative
    number = padding."""
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, MASKED)


def pooled_features(features: Features, vector: Tensor) -> Features:
    """Return Features whose `pooled` and only token is `vector [B, D]`."""
    mask = torch.ones((len(vector), 1), dtype=torch.bool, device=vector.device)
    return features.replace(
        tokens=vector.unsqueeze(1), mask=mask, grid=None, spacing=None, origin=None, pooled=vector
    )


def linear_if_needed(in_dim: int, out_dim: int) -> nn.Module:
    """Return a linear layer to `out_dim`, or the identity if the width is equal."""
    return nn.Identity() if in_dim == out_dim else nn.Linear(in_dim, out_dim)


def split_evenly(where: str, width: int, heads: int) -> None:
    """Raise ValueError if the number of heads does not divide the width."""
    if heads < 1 or width % heads:
        raise ValueError(
            f"{where}: heads {heads} does not divide the width {width}; choose a divisor of {width}"
        )


def at_least(where: str, option: str, value: int, minimum: int) -> None:
    """Raise ValueError if a number is too small."""
    if value < minimum:
        raise ValueError(f"{where}: {option} is {value}, must be at least {minimum}")


def sincos(grid: tuple[int, ...], dim: int, like: Tensor) -> Tensor:
    """Return fixed position embeddings `[prod(grid), dim]`: sines and cosines of each axis, side by
    side.

    Vaswani et al. 2017, section 3.5, for each axis; the rest of the width is zero.
    """
    pairs = dim // (2 * len(grid))  # frequencies an axis
    rates = torch.arange(pairs, device=like.device, dtype=torch.float32)
    rates = torch.exp(rates * (-math.log(10000.0) / max(pairs, 1)))
    axes = [torch.arange(n, device=like.device, dtype=torch.float32) for n in grid]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)  # [T, axes]
    angles = (positions.unsqueeze(-1) * rates).flatten(1)  # [T, axes * pairs]
    table = torch.cat([angles.sin(), angles.cos()], -1)
    return nn.functional.pad(table, (0, dim - table.shape[-1])).to(like.dtype)
