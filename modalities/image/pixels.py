"""The pixels of a picture as features: what a generator of pictures learns to produce.

Legend: `B` batch, `H`, `W` px.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from ..base import Encoder, Features, PositiveInt, Processor, Sample

PNG = "data:image/png;base64,"


@dataclass
class PixelProcessor(Processor):
    """Squashes a picture to `size` (height and width in px); values from -1 to 1."""

    size: tuple[int, int]

    def prepare(self, raw: Image.Image) -> Sample:
        """`pixel_values` float `[3, H, W]`."""
        height, width = self.size
        if raw.size != (width, height):
            raw = raw.resize((width, height), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(raw.convert("RGB"))).permute(2, 0, 1)
        return {"pixel_values": pixels.float() / 127.5 - 1}


class Pixels(Encoder):
    """A token a pixel, red, green and blue from -1 to 1; nothing in it trains. size: px of a side,
    as the generator of these pictures has it."""

    dim = 3

    def __init__(self, *, size: PositiveInt) -> None:
        super().__init__()
        self.processor = PixelProcessor((size, size))

    def forward(self, pixel_values: Tensor) -> Features:
        """pixel_values `[B, 3, H, W]` -> Features `[B, H W, 3]` on the grid of its pixels."""
        return Features.dense(
            pixel_values.flatten(2).mT,
            grid=(pixel_values.shape[2], pixel_values.shape[3]),
            spacing=(1.0, 1.0),
            origin=(0.5, 0.5),
        )


def to_png(pixels: Tensor) -> str:
    """Return a picture `[H, W, 3]`, values from -1 to 1, as the address of a PNG."""
    levels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return PNG + base64.b64encode(buffer.getvalue()).decode()


def draw(prediction: Mapping[str, Any], target: Any, parts: Any) -> Markup:
    """Return the generated picture of a prediction as HTML, for a report."""
    return Markup(
        '<img src="{}" width="128" alt="generated picture" style="image-rendering: pixelated">'
    ).format(prediction["image"])
