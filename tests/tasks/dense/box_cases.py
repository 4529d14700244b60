"""Boxes, and volumes that they lie in."""

from __future__ import annotations

import math

import torch

from sensorium.modalities.base import Features

GRID = (4, 5, 3)


def some_boxes(count: int, axes: int = 3, seed: int = 0) -> torch.Tensor:
    ends = torch.rand(count, 2, axes, generator=torch.Generator().manual_seed(seed)) * 40 - 20
    return torch.cat([ends.amin(1), ends.amax(1)], -1)


def askew(rows: int) -> torch.Tensor:
    """Affines that turn, stretch and shift."""
    generator = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(rows, 3, 3, generator=generator))[0]
    affine = torch.eye(4).repeat(rows, 1, 1)
    affine[:, :3, :3] = turn * torch.tensor([2.0, 4.0, 3.0])
    affine[:, :3, 3] = torch.randn(rows, 3, generator=generator) * 30
    return affine


def volumes(rows: int, *, dim: int = 16, grid: tuple[int, ...] = GRID, seed: int = 0) -> Features:
    tokens = torch.randn(rows, math.prod(grid), dim, generator=torch.Generator().manual_seed(seed))
    axes = len(grid)
    affine = askew(rows) if axes == 3 else torch.eye(axes + 1).repeat(rows, 1, 1)
    return Features.dense(
        tokens, grid=grid, spacing=(8.0,) * axes, origin=(3.5,) * axes, affine=affine
    )
