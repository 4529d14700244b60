"""Tokens of a volume, masks, and a segmentation task over them."""

from __future__ import annotations

import math

import torch

from sensorium.connectors.decoders import Unetr
from sensorium.modalities.base import Features
from sensorium.tasks.dense.segmentation import Segmentation

GRID, FINE = (3, 4, 2), (6, 8, 4)


def tokens_of(rows: int, grid: tuple[int, ...] = GRID, seed: int = 0) -> Features:
    numbers = torch.randn(rows, math.prod(grid), 16, generator=torch.Generator().manual_seed(seed))
    axes = len(grid)
    affine = torch.eye(axes + 1).repeat(rows, 1, 1)
    affine[:, :axes, axes] = 5.0 if axes == 3 else 0.0
    return Features.dense(
        numbers, grid=grid, spacing=(2.0,) * axes, origin=(0.5,) * axes, affine=affine
    )


def task_of(axes: int = 3, **options: object) -> Segmentation:
    torch.manual_seed(0)
    task = Segmentation(input="volume", **options)
    task.heads["head"] = Unetr(16, 1, ups=1, width=16, axes=axes)
    return task
