"""Shorteners: fewer tokens, each made of several neighbours.

`PixelShuffle`: InternVL 1.5 and Idefics3 fold squares of patches into the width. `FrameStack`:
SLAM-LLM (Ma et al. 2024) concatenates frames. `Conv`: a strided convolution over time. Legend: `B`
batch, `T` tokens, `D` width, `f` factor.

As in projectors, `pooled` is dropped.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..modalities.base import Count, Features, PositiveInt
from .base import Connector
from .layout import as_sequence, at_least, mask_tokens


class PixelShuffle(Connector):
    """Folds `factor` neighbours along each of the last `axes` axes of the grid into one token.

    axes: 2 for pictures (and clips, whose frames stay apart), 3 for volumes. A token is real if one
    of its parts is. Pictures of several sizes have no common grid: `positions [B, T, 2]` then say
    where each token is. Raise ValueError for a grid that is missing or not divisible.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, factor: PositiveInt = 2, axes: PositiveInt = 2
    ) -> None:
        super().__init__(in_dim, out_dim)
        at_least("pixel_shuffle", "factor", factor, 1)
        at_least("pixel_shuffle", "axes", axes, 1)
        self.factor, self.axes = factor, axes
        self.map = nn.Linear(in_dim * factor**axes, out_dim)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim]` on a grid -> `[B, T / f^axes, out_dim]`."""
        if features.grid is None and features.positions is not None and self.axes == 2:
            return self._by_position(features, features.positions)
        grid = self._check(features)
        factors = (1,) * (len(grid) - self.axes) + (self.factor,) * self.axes
        mask = space_to_depth(features.mask.unsqueeze(-1), grid, factors).any(-1)
        tokens = space_to_depth(mask_tokens(features.tokens, features.mask), grid, factors)
        return features.replace(
            tokens=mask_tokens(self.map(tokens), mask),
            mask=mask,
            grid=tuple(n // f for n, f in zip(grid, factors, strict=True)),
            spacing=scale_spacing(features.spacing, factors),
            origin=shift_origin(features.origin, features.spacing, factors),
            pooled=None,
        )

    def _by_position(self, features: Features, positions: Tensor) -> Features:
        """Fold squares of tokens `[B, T]` at rows and columns `[B, T, 2]`, row by row."""
        square, mask = self.factor**2, features.mask
        width = int(positions.max()) + 1 if not mask.is_meta else 1
        block, inside = positions // self.factor, positions % self.factor
        key = block[..., 0] * width + block[..., 1]
        key = key * square + inside[..., 0] * self.factor + inside[..., 1]
        order = key.masked_fill(~mask, torch.iinfo(key.dtype).max).argsort(dim=1, stable=True)
        order = nn.functional.pad(order, (0, -order.shape[1] % square))  # no real token there
        real = mask.gather(1, order)
        real[:, mask.shape[1] :] = False
        tokens = mask_tokens(_take(features.tokens, order), real).unflatten(1, (-1, square))
        blocks = _take(block, order).unflatten(1, (-1, square))
        whole = real.unflatten(1, (-1, square))
        if not mask.is_meta:
            same = (blocks == blocks[:, :, :1]).all(-1).all(-1) & whole.all(-1)
            if not bool((same | ~whole.any(-1)).all()):
                raise ValueError(
                    f"pixel_shuffle: a picture's rows or columns are not divisible by factor "
                    f"{self.factor}; set merge: {self.factor} in the encoder"
                )
        mask = whole.any(-1)
        tokens = mask_tokens(self.map(tokens.flatten(2)), mask)
        return Features(tokens, mask, positions=blocks[:, :, 0])

    def _check(self, features: Features) -> tuple[int, ...]:
        grid = features.grid
        if grid is None or len(grid) < self.axes:
            raise ValueError(
                f"pixel_shuffle: folds {self.axes} axes, the encoder returns grid {grid}; "
                "use stack or resampler, or set axes"
            )
        for size in grid[-self.axes :]:
            if size % self.factor:
                raise ValueError(
                    f"pixel_shuffle: {size} tokens along an axis of grid {grid} are not divisible "
                    f"by factor {self.factor}; change factor or the encoder's input size"
                )
        return grid


def _take(values: Tensor, order: Tensor) -> Tensor:
    """Return the rows `[B, T', W]` of `[B, T, W]` in an order `[B, T']`."""
    return values.gather(1, order[..., None].expand(-1, -1, values.shape[-1]))


class FrameStack(Connector):
    """Concatenates `factor` neighbours along the sequence; the last group is filled with zeros.

    depth: linear layers of a group, with a GELU between them; 2 is the projector of Llama-AVSR
    (Cappellazzo et al. 2024) and SLAM-LLM. A group with one real token is real. A grid of one axis
    is kept; of more axes it is lost.
    """

    causal = True

    def __init__(
        self, in_dim: int, out_dim: int, *, factor: PositiveInt = 2, depth: Count = 1
    ) -> None:
        super().__init__(in_dim, out_dim)
        at_least("stack", "factor", factor, 1)
        at_least("stack", "depth", depth, 1)
        self.factor = factor
        layers = [
            layer for _ in range(depth - 1) for layer in (nn.GELU(), nn.Linear(out_dim, out_dim))
        ]
        first = nn.Linear(in_dim * factor, out_dim)
        self.map = nn.Sequential(first, *layers) if layers else first

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, ceil(T / factor), out_dim]`."""
        tokens, mask = as_sequence(features)
        missing = -tokens.shape[1] % self.factor
        mask = nn.functional.pad(mask, (0, missing)).unflatten(1, (-1, self.factor)).any(-1)
        tokens = nn.functional.pad(tokens, (0, 0, 0, missing))
        tokens = tokens.unflatten(1, (-1, self.factor)).flatten(2)
        line = features.grid is not None and len(features.grid) == 1
        origin = shift_origin(features.origin, features.spacing, (self.factor,)) if line else None
        return features.replace(
            tokens=mask_tokens(self.map(tokens), mask),
            mask=mask,
            grid=(mask.shape[1],) if line else None,
            spacing=scale_spacing(features.spacing, (self.factor,)) if line else None,
            origin=origin,
            pooled=None,
        )


class Conv(Connector):
    """A strided convolution along the sequence; padding reads as zeros, as the border does.

    kernel: odd, so that token j of the output is centred on token `j * stride` of the input and a
    sample of L tokens has `ceil(L / stride)`, independent of its padding.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, kernel: PositiveInt = 3, stride: PositiveInt = 2
    ) -> None:
        super().__init__(in_dim, out_dim)
        at_least("conv", "kernel", kernel, 1)
        at_least("conv", "stride", stride, 1)
        if kernel % 2 == 0:
            raise ValueError(f"conv: kernel {kernel} is even; use {kernel - 1} or {kernel + 1}")
        self.stride = stride
        self.map = nn.Conv1d(in_dim, out_dim, kernel, stride=stride, padding=kernel // 2)

    def forward(self, features: Features) -> Features:
        """`[B, T, in_dim] -> [B, ceil(T / stride), out_dim]`."""
        tokens, mask = as_sequence(features)
        tokens = self.map(tokens.mT).mT
        mask = mask[:, :: self.stride]  # j * stride < L is the same as j < ceil(L / stride)
        line = features.grid is not None and len(features.grid) == 1
        return features.replace(
            tokens=mask_tokens(tokens, mask),
            mask=mask,
            grid=(mask.shape[1],) if line else None,
            spacing=scale_spacing(features.spacing, (self.stride,)) if line else None,
            origin=features.origin if line else None,
            pooled=None,
        )


def space_to_depth(values: Tensor, grid: tuple[int, ...], factors: tuple[int, ...]) -> Tensor:
    """values `[B, prod(grid), D]` -> `[B, prod(grid / factors), prod(factors) * D]`."""
    pairs = [size for n, f in zip(grid, factors, strict=True) for size in (n // f, f)]
    axes = range(len(grid))
    order = [0, *(1 + 2 * a for a in axes), *(2 + 2 * a for a in axes), 1 + 2 * len(grid)]
    split = values.unflatten(1, pairs).permute(order)  # [B, n1/f1, .., f1, .., D]
    return split.reshape(values.shape[0], -1, math.prod(factors) * values.shape[-1])


def scale_spacing(
    step: tuple[float, ...] | None, factors: tuple[float, ...]
) -> tuple[float, ...] | None:
    """Return the extent of a token that holds `factors` of the old ones."""
    return None if step is None else tuple(s * f for s, f in zip(step, factors, strict=True))


def shift_origin(
    origin: tuple[float, ...] | None, step: tuple[float, ...] | None, factors: tuple[float, ...]
) -> tuple[float, ...] | None:
    """Return the centre of the first token that holds `factors` of the old ones."""
    if origin is None or step is None:
        return None
    return tuple(o + s * (f - 1) / 2 for o, s, f in zip(origin, step, factors, strict=True))
