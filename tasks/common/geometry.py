"""Where the tokens of a grid lie in the world: mm for volumes, pixels for pictures.

Legend: `B` batch, `n` axes of the grid; a matrix `[B, n + 1, n + 1]` takes places `[..., n]` of one
space to another, in homogeneous coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...modalities.base import Features


def grid_to_world(features: Features, who: str) -> Tensor:
    """`[B, n + 1, n + 1]` index of a token on its grid -> world. Raises ValueError where the
    features do not say where they lie; `who` asks."""
    grid, step, origin = features.grid, features.spacing, features.origin
    if grid is None or step is None or origin is None:
        raise ValueError(
            f"{who}: the features do not say where their tokens lie (grid {grid}, step {step}, "
            f"origin {origin}); take an encoder that keeps a grid, and no connector that loses it"
        )
    axes = len(grid)
    own = torch.eye(axes + 1, dtype=torch.float32, device=features.tokens.device)
    own[:axes, :axes] = torch.diag(own.new_tensor(step))
    own[:axes, axes] = own.new_tensor(origin)
    if features.affine is None:
        return own.expand(len(features.tokens), -1, -1)
    if features.affine.shape[-1] != axes + 1:
        raise ValueError(
            f"{who}: a grid of {axes} axes with an affine of {features.affine.shape[-1] - 1}; "
            "expected as many"
        )
    return features.affine.float() @ own


def transform_points(matrix: Tensor, places: Tensor) -> Tensor:
    """Places `[B, N, n]` through a matrix `[B, n + 1, n + 1]`."""
    axes = places.shape[-1]
    return places @ matrix[:, :axes, :axes].mT + matrix[:, None, :axes, axes]


def grid_coordinates(grid: tuple[int, ...], like: Tensor) -> Tensor:
    """`[prod(grid), n]` the index of every token of a grid, in their order."""
    axes = [torch.arange(size, dtype=torch.float32, device=like.device) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


def resample_grid(
    values: Tensor, there: Tensor, here: Tensor, grid: tuple[int, ...], mode: str = "nearest"
) -> Tensor:
    """values `[B, C, *other grid]` read at every place of a grid: `[B, C, *grid]`, 0 outside.

    there, here: the matrices of the values' grid and of the one that is filled, both to the world.
    """
    way = torch.linalg.inv(there) @ here
    places = transform_points(
        way, grid_coordinates(grid, values).expand(len(values), -1, -1)
    )  # [B, N, n]
    last = places.new_tensor([size - 1 for size in values.shape[2:]])
    # `grid_sample` counts from -1 to 1 and from the last axis; an axis of one place has no scale.
    scaled = torch.where(last > 0, 2 * places / last.clamp(min=1) - 1, 2 * places).flip(-1)
    looked = scaled.unflatten(1, grid)
    found: Tensor = F.grid_sample(
        values, looked.to(values.dtype), mode=mode, padding_mode="zeros", align_corners=True
    )
    return found


POINTS = 4
"""Places that are looked up along each axis of a token."""


def mask_coverage(mask: Features, tokens: Features, who: str) -> Tensor:
    """mask: a token a place `[B, U, 1]`; tokens `[B, T, D]` -> `[B, T]` shares from 0 to 1.

    Raises ValueError where one of them does not say where it lies; `who` asks.
    """
    there, here = grid_to_world(mask, who), grid_to_world(tokens, who)
    grid, own = tokens.grid or (), mask.grid or ()
    values = ((mask.tokens[..., 0] > 0.5) & mask.mask).float().unflatten(1, own)[:, None]
    finer = torch.eye(len(grid) + 1, device=here.device)
    finer[:-1, :-1] /= POINTS
    finer[:-1, -1] = (1 / POINTS - 1) / 2
    fine = tuple(size * POINTS for size in grid)
    found = resample_grid(values, there, here @ finer, fine)[:, 0]  # [B, *fine]
    for axis, size in enumerate(grid):
        found = found.unflatten(axis + 1, (size, POINTS)).mean(axis + 2)
    return found.flatten(1)
