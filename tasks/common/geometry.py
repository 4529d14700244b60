"""Positions of a grid's tokens in the world: mm for volumes, pixels for pictures.

Legend: `B` batch, `n` axes of the grid; a matrix `[B, n + 1, n + 1]` maps positions `[..., n]` of
one space to another, in homogeneous coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...modalities.base import Features


def grid_to_world(features: Features, name: str) -> Tensor:
    """Return `[B, n + 1, n + 1]`, from the index of a token on its grid to the world. Raise
    ValueError, with the caller's `name`, if the features have no geometry."""
    grid, spacing, origin = features.grid, features.spacing, features.origin
    if grid is None or spacing is None or origin is None:
        raise ValueError(
            f"{name}: the features have no geometry (grid {grid}, spacing {spacing}, "
            f"origin {origin}); use an encoder that keeps a grid, and no connector that loses it"
        )
    axes = len(grid)
    if axes == 2 and features.affine is None:
        raise ValueError(
            f"{name}: it is not known where the prepared pictures lie in those that were read "
            "(their processor records no steps, or makes tiles or clips of them); use an encoder "
            "of pictures that are resized and cropped alone"
        )
    matrix = torch.eye(axes + 1, dtype=torch.float32, device=features.tokens.device)
    matrix[:axes, :axes] = torch.diag(matrix.new_tensor(spacing))
    matrix[:axes, axes] = matrix.new_tensor(origin)
    if features.affine is None:
        return matrix.expand(len(features.tokens), -1, -1)
    if features.affine.shape[-1] != axes + 1:
        raise ValueError(
            f"{name}: a grid of {axes} axes with an affine of {features.affine.shape[-1] - 1}; "
            "expected as many"
        )
    return features.affine.float() @ matrix


def transform_points(matrix: Tensor, positions: Tensor) -> Tensor:
    """Map positions `[B, N, n]` by a matrix `[B, n + 1, n + 1]`."""
    axes = positions.shape[-1]
    return positions @ matrix[:, :axes, :axes].mT + matrix[:, None, :axes, axes]


def grid_coordinates(grid: tuple[int, ...], like: Tensor) -> Tensor:
    """Return `[prod(grid), n]`, the index of every token of a grid, in their order."""
    axes = [torch.arange(size, dtype=torch.float32, device=like.device) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


TIE = 1e-3
"""Voxels by which the nearest one is looked up aside, so that a place in the middle of two always
goes to the same side."""


def resample_grid(
    values: Tensor, source: Tensor, target: Tensor, grid: tuple[int, ...], mode: str = "nearest"
) -> Tensor:
    """Sample values `[B, C, *other grid]` at every position of a grid: `[B, C, *grid]`, 0 outside.

    source, target: the matrices of the values' grid and of the new grid, both to the world.
    """
    to_source = torch.linalg.inv(source) @ target
    positions = transform_points(
        to_source, grid_coordinates(grid, values).expand(len(values), -1, -1)
    )  # [B, N, n]
    positions = positions - TIE if mode == "nearest" else positions
    last = positions.new_tensor([size - 1 for size in values.shape[2:]])
    # `grid_sample` counts from -1 to 1 and from the last axis; an axis of size 1 has no scale.
    scaled = torch.where(last > 0, 2 * positions / last.clamp(min=1) - 1, 2 * positions).flip(-1)
    points = scaled.unflatten(1, grid)
    sampled: Tensor = F.grid_sample(
        values, points.to(values.dtype), mode=mode, padding_mode="zeros", align_corners=True
    )
    return sampled


POINTS = 4
"""Positions sampled along each axis of a token."""


def mask_coverage(mask: Features, tokens: Features, name: str) -> Tensor:
    """Return the fraction `[B, T]` of each of the tokens `[B, T, D]` that a mask `[B, U, 1]`
    covers.

    Raise ValueError, with the caller's `name`, if one of them has no geometry.
    """
    mask_to_world, to_world = grid_to_world(mask, name), grid_to_world(tokens, name)
    grid, mask_grid = tokens.grid or (), mask.grid or ()
    values = ((mask.tokens[..., 0] > 0.5) & mask.mask).float().unflatten(1, mask_grid)[:, None]
    to_fine = torch.eye(len(grid) + 1, device=to_world.device)
    to_fine[:-1, :-1] /= POINTS
    to_fine[:-1, -1] = (1 / POINTS - 1) / 2
    fine_grid = tuple(size * POINTS for size in grid)
    covered = resample_grid(values, mask_to_world, to_world @ to_fine, fine_grid)
    covered = covered[:, 0]  # [B, *fine]
    for axis, size in enumerate(grid):
        covered = covered.unflatten(axis + 1, (size, POINTS)).mean(axis + 2)
    return covered.flatten(1)
