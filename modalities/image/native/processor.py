"""Pictures as patches at their own resolution (NaViT, arXiv 2307.06304; Kimi-VL, 2504.07491).

Legend: `h`, `w` patches of a picture, `p` px of a side of a patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...base import Processor, ReadError, Sample


@dataclass
class NativeProcessor(Processor):
    """Keeps a picture's size and shape: its sides are rounded to multiples of `patch * merge` px,
    and it is shrunk if it has more than `max_patches`."""

    patch: int
    merge: int
    max_patches: int

    def prepare(self, raw: Any) -> Sample:
        """`patches [h w, 3 p p]` in [-1, 1], row by row, and `place [h w, 2]`, row and column."""
        if not isinstance(raw, Image.Image):
            raise ReadError(raw, "no single picture", "a picture, not a clip")
        height, width = self.grid(raw.height, raw.width)
        side = self.patch
        picture = raw.convert("RGB").resize((width * side, height * side), Image.Resampling.BICUBIC)
        values = torch.from_numpy(np.array(picture)).float() / 127.5 - 1  # [H, W, 3]
        blocks = values.view(height, side, width, side, 3).permute(0, 2, 1, 3, 4)
        axes = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return {
            "patches": blocks.reshape(height * width, -1),
            "place": torch.stack(axes, -1).view(-1, 2),
        }

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of patches of a picture of so many px; both are multiples of
        `merge`, and at most `max_patches` in all."""
        unit = self.patch * self.merge
        scale = min(1.0, math.sqrt(self.max_patches * self.patch**2 / (height * width)))
        rows, columns = (max(1, round(side * scale / unit)) for side in (height, width))
        while rows * columns * self.merge**2 > self.max_patches and max(rows, columns) > 1:
            rows, columns = (rows - 1, columns) if rows >= columns else (rows, columns - 1)
        return rows * self.merge, columns * self.merge
