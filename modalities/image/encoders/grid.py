"""Where the tokens of a picture lie: maps to token sequences, counts to grids.

Legend: `B` batch, `T` tokens, `D` width, `H`, `W` px of the prepared picture, `h`, `w` tokens.
Pixels are counted from the picture's upper left corner: the first patch of 16 px has its
centre at 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...base import Features

Size = tuple[int, int]


def token_geometry(grid: Size, size: Size, stride: int) -> dict[str, Any]:
    """`grid`, `step` and `origin` of `grid` tokens over a picture of `size` px.

    The step is the network's stride; where its borders or a resizing make another number of
    tokens than that, they share the picture evenly.
    """
    step = tuple(
        float(stride) if n in (s // stride, -(-s // stride)) else s / n
        for n, s in zip(grid, size, strict=True)
    )
    return {"grid": grid, "spacing": step, "origin": tuple(s / 2 for s in step)}


def from_map(feature_map: Tensor, size: Size, stride: int, **fields: Any) -> Features:
    """A feature map `[B, D, h, w]` -> Features of `T = h * w` tokens, row by row."""
    grid = (feature_map.shape[2], feature_map.shape[3])
    tokens = feature_map.flatten(2).transpose(1, 2)  # [B, T, D]
    return Features.dense(tokens, **token_geometry(grid, size, stride), **fields)


def fit(count: int, size: Size, stride: int, prefixes: tuple[int, ...]) -> tuple[Size, int] | None:
    """Return the grid and the number of leading tokens (CLS, registers) of a sequence of `count`.

    prefixes: the numbers of leading tokens that are possible; None where none fits.
    """
    floor = (size[0] // stride, size[1] // stride)
    ceil = (-(-size[0] // stride), -(-size[1] // stride))
    for grid in (floor, ceil):
        prefix = count - grid[0] * grid[1]
        if grid[0] * grid[1] and prefix in prefixes:
            return grid, prefix
    return None


def fit_any(
    count: int, size: Size, strides: Sequence[int], prefixes: tuple[int, ...]
) -> tuple[Size, int, int] | None:
    """As `fit` with the first of several strides that fits, and this stride; else with one that
    the count itself says, if equal steps along both axes give it."""
    for stride in strides:
        if (fitted := fit(count, size, stride, prefixes)) is not None:
            return (*fitted, stride)
    for prefix in prefixes:
        if count <= prefix:
            continue
        stride = max(1, round(math.sqrt(size[0] * size[1] / (count - prefix))))
        if (fitted := fit(count, size, stride, (prefix,))) is not None:
            return (*fitted, stride)
    return None
