"""A decoder from tokens up to the grid of their signal: the head of dense predictions.

Hatamizadeh et al., "UNETR: Transformers for 3D Medical Image Segmentation", 2022, without its path
from the signal itself: the input is tokens only, which can be cached.

Legend: `B` batch, `T` tokens, `D` width, `u` doublings, `n` axes of the grid.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn

from ..modalities.base import Features, PositiveInt
from .base import Connector
from .layout import at_least, mask_tokens
from .shorteners import scale_spacing, shift_origin

CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
GROW: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
LEAST = 8
"""Minimum number of channels of a level."""


class Unetr(Connector):
    """Doubles every axis of the grid `ups` times by transposed convolutions; a token of 8 voxels
    needs 3.

    layers: hidden layers of the encoder that are read beside its output; the last of them joins at
    the first doubling, the others further up, as in the paper. width: channels on the tokens' grid,
    halved at each doubling. axes: of the grid, 2 for pictures.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        ups: PositiveInt = 3,
        width: PositiveInt = 32,
        layers: list[int] | None = None,
        axes: Literal[2, 3] = 3,
    ) -> None:
        super().__init__(in_dim, out_dim)
        at_least("unetr", "ups", ups, 1)
        at_least("unetr", "width", width, 1)
        self.hidden_layers = tuple(layers or ())
        if len(self.hidden_layers) > ups:
            raise ValueError(
                f"unetr: {len(self.hidden_layers)} layers join at {ups} doublings; name {ups} "
                "at most, or raise ups"
            )
        self.ups, self.axes = ups, axes
        widths = [max(width >> level, min(width, LEAST)) for level in range(ups + 1)]
        self.start = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, widths[0]))
        self.up = nn.ModuleList(
            GROW[axes](i, o, 2, stride=2) for i, o in itertools.pairwise(widths)
        )
        joins = list(enumerate(reversed(self.hidden_layers), 1))
        self.joins = nn.ModuleList(Rise(in_dim, widths[level], level, axes) for level, _ in joins)
        self.blocks = nn.ModuleList(
            Block(o * (2 if level <= len(joins) else 1), o, axes)
            for level, o in enumerate(widths[1:], 1)
        )
        self.map = CONV[axes](widths[-1], out_dim, 1)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim]` on a grid -> `[B, T 2^(u n), out_dim]` on one `2^u` times as fine."""
        grid = self._check(features)
        real = features.mask.unflatten(1, grid)[:, None]  # [B, 1, *grid]
        hidden = _on_grid(self.start(mask_tokens(features.tokens, features.mask)), grid) * real
        skips = features.hidden_states[: len(self.hidden_layers)][::-1]
        for level, (up, block) in enumerate(zip(self.up, self.blocks, strict=True)):
            real = _doubled(real)
            hidden = up(hidden) * real
            if level < len(skips):
                tokens = mask_tokens(skips[level].tokens, features.mask)
                hidden = torch.cat([hidden, self.joins[level](tokens, grid) * real], 1)
            hidden = block(hidden) * real
        output = self.map(hidden) * real
        share = (0.5**self.ups,) * self.axes
        return features.replace(
            tokens=output.flatten(2).transpose(1, 2),
            mask=real.flatten(1),
            grid=tuple(output.shape[2:]),
            spacing=scale_spacing(features.spacing, share),
            origin=shift_origin(features.origin, features.spacing, share),
            pooled=None,
            hidden_states=() if self.hidden_layers else features.hidden_states,
        )

    def _check(self, features: Features) -> tuple[int, ...]:
        grid, count = features.grid, len(self.hidden_layers)
        if grid is None or len(grid) != self.axes:
            raise ValueError(
                f"unetr: decodes a grid of {self.axes} axes, the features have the grid {grid}; "
                f"{_cure(grid)}"
            )
        if len(features.hidden_states) < count:
            raise ValueError(
                f"unetr: got {len(features.hidden_states)} hidden layers, expected {count}; take "
                "an encoder that supports `hidden_states`, or leave layers out"
            )
        for layer in features.hidden_states[:count]:
            if layer.tokens.shape[1:] != (math.prod(grid), self.in_dim):
                raise ValueError(
                    f"unetr: a hidden layer is {tuple(layer.tokens.shape[1:])}, the tokens "
                    f"{(math.prod(grid), self.in_dim)}; name layers of the same shape"
                )
        return grid


def _cure(grid: tuple[int, ...] | None) -> str:
    if grid is None or len(grid) not in GROW:
        return "take an encoder that keeps its grid"
    return f"set head: {{type: unetr, axes: {len(grid)}}}"


class Rise(nn.Module):
    """Upsamples the tokens of a hidden layer to the level that they join."""

    def __init__(self, in_dim: int, width: int, level: int, axes: int) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, width))
        self.up = nn.ModuleList(GROW[axes](width, width, 2, stride=2) for _ in range(level))

    def forward(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """`[B, T, D]` -> `[B, W, *finer grid]`."""
        hidden = _on_grid(self.start(tokens), grid)
        for up in self.up:
            hidden = nn.functional.gelu(up(hidden))
        return hidden


class Block(nn.Module):
    """A convolution with a norm of each voxel over its channels, so that neither neighbours nor
    padding affect the scale."""

    def __init__(self, in_width: int, out_width: int, axes: int) -> None:
        super().__init__()
        self.map = CONV[axes](in_width, out_width, 3, padding=1)
        self.norm = nn.LayerNorm(out_width)

    def forward(self, hidden: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.map(hidden).movedim(1, -1)).movedim(-1, 1)
        return nn.functional.gelu(normed)


def _on_grid(tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    """`[B, T, W] -> [B, W, *grid]`."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def _doubled(real: Tensor) -> Tensor:
    """Repeat each position of `[B, 1, *grid]` bool twice along every axis."""
    for axis in range(2, real.ndim):
        real = real.repeat_interleave(2, axis)
    return real
