"""Masks of volumes as a separate signal: a stream of labels.

A mask keeps the space that it was drawn in; a task lays it over a volume's tokens by the
affines of both. As a stream it is read, cached and batched as any signal is.

Legend: `B` batch, `U V W` voxels of the mask's own grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from ...base import Encoder, Features, Processor, Sample
from ..io import oriented
from .vit3d import padded


@dataclass
class MaskProcessor(Processor):
    """Keeps a mask unchanged."""

    def prepare(self, raw: MetaTensor) -> Sample:
        """`mask` uint8 `[U, V, W]`, `affine` float32 `[4, 4]` (voxel to mm)."""
        return {"mask": (raw.as_tensor()[0] > 0).to(torch.uint8), "affine": raw.affine.float()}


class Mask(Encoder):
    """A token a voxel, 1 where the mask is; nothing in it trains."""

    dim = 1

    def __init__(self) -> None:
        super().__init__()
        self.processor = MaskProcessor()

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Masks of any shapes, padded at the far ends with nothing."""
        shape = [max(s["mask"].shape[axis] for s in samples) for axis in range(3)]
        real = [padded(torch.ones_like(s["mask"]), shape) for s in samples]
        return {
            "mask": torch.stack([padded(s["mask"], shape) for s in samples]),
            "inside": torch.stack(real).bool(),
            "affine": torch.stack([s["affine"] for s in samples]),
        }

    def forward(self, mask: Tensor, inside: Tensor, affine: Tensor) -> Features:
        """mask `[B, U, V, W]` -> Features `[B, U V W, 1]` on the grid of its voxels."""
        return Features(
            mask.flatten(1)[..., None].float(),
            inside.flatten(1),
            grid=(mask.shape[1], mask.shape[2], mask.shape[3]),
            spacing=(1.0, 1.0, 1.0),
            origin=(0.0, 0.0, 0.0),
            affine=affine,
        )


def example(rng: np.random.Generator) -> MetaTensor:
    """Return a ball somewhere, for dry runs and tests."""
    axes = np.meshgrid(*(np.arange(n) for n in (20, 22, 18)), indexing="ij")
    centre = rng.uniform(6, 12, 3)
    squared_distance = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True))
    return oriented(
        (squared_distance < 16)[None], np.diag([4.0, 4.0, 4.0, 1.0]), "example", flat=True
    )
