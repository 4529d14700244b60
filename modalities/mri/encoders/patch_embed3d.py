"""Volumes as patches, padding kept out of every convolution.

Legend: `B` batch, `C` contrasts, `D` width, `X Y Z` voxels, `x y z` tokens.
"""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn
from torch.nn import functional as F

Size = tuple[int, int, int]


class Patches3D(nn.Module):
    """Non-overlapping patches of `patch` voxels, after 3 x 3 x 3 convolutions of the widths `stem`,
    each of which halves the axes. Raise ValueError where a stage does not divide the patch."""

    def __init__(self, contrasts: int, dim: int, patch: Size, stem: list[int]) -> None:
        super().__init__()
        halved = 2 ** len(stem)
        if min(patch) < 1 or any(p % halved for p in patch):
            raise ValueError(
                f"patch: {patch} voxels with a stem of {len(stem)}; expected multiples of {halved}"
            )
        self.patch = patch
        widths = [contrasts, *stem]
        self.stem = nn.ModuleList(
            Halving(i, o, number == 0) for number, (i, o) in enumerate(itertools.pairwise(widths))
        )
        kernel = tuple(p // halved for p in patch)
        self.project = nn.Conv3d(widths[-1], dim, kernel, kernel)

    def forward(self, volume: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """volume `[B, C, X, Y, Z]`, inside `[B, X, Y, Z]` -> `[B, D, x, y, z]` and which of them
        are real `[B, x, y, z]`. Axes that the patch does not divide are padded at the far end."""
        padding = [
            math.ceil(n / p) * p - n for n, p in zip(volume.shape[2:], self.patch, strict=True)
        ]
        ends = [0, padding[2], 0, padding[1], 0, padding[0]]
        real = F.pad(inside[:, None].to(volume.dtype), ends)
        hidden = F.pad(volume, ends) * real
        for stage in self.stem:
            real = F.max_pool3d(real, 2)
            hidden = stage(hidden) * real
        kernel = self.project.kernel_size
        real = F.max_pool3d(real, kernel, kernel)
        return self.project(hidden), real[:, 0] > 0.5


class Halving(nn.Module):
    """A convolution that halves the axes. The first one of a stem steps over every other voxel;
    the others keep the largest of eight, since small bright structures are easily averaged away.
    Not normed: a norm over a voxel's channels would take its brightness."""

    def __init__(self, in_width: int, out_width: int, first: bool) -> None:
        super().__init__()
        self.map = nn.Conv3d(in_width, out_width, 3, stride=2 if first else 1, padding=1)
        self.first = first

    def forward(self, volume: Tensor) -> Tensor:
        hidden = F.gelu(self.map(volume))  # [B, D, x, y, z]
        return hidden if self.first else F.max_pool3d(hidden, 2)
