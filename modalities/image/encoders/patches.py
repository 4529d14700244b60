"""Pictures without an encoder: a convolution makes the tokens, the decoder does the rest.

The encoder-free route: Diao et al., "Unveiling Encoder-Free Vision-Language Models" (EVE), 2024.
With `stem`, strided 3 x 3 convolutions come first: Xiao et al., "Early Convolutions Help
Transformers See Better", 2021; small models learn far sooner with them.

Legend: `B` batch, `D` width, `H`, `W` px, `h`, `w` tokens, `T = h * w`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...base import Encoder, Features, PositiveInt
from ..processor import TimmProcessor
from .grid import from_map


class Patches(Encoder):
    """Patches of a square picture as tokens, with learned positions in two dimensions.

    size: px of a side of the prepared picture. patch_size: px of a token's side. dim: width of
    a token. stem: widths of strided 3 x 3 convolutions that come first, each halving the sides.
    """

    def __init__(
        self,
        size: PositiveInt,
        patch_size: PositiveInt,
        dim: PositiveInt,
        *,
        stem: list[PositiveInt] | None = None,
    ) -> None:
        super().__init__()
        widths = [3, *(stem or [])]
        halved = 2 ** (len(widths) - 1)
        if patch_size % halved or size % patch_size:
            raise ValueError(
                f"patches: size {size}, patch_size {patch_size}, a stem of {len(widths) - 1}; "
                f"patch_size must divide size and be a multiple of {halved}"
            )
        self.dim, self.patch_size = dim, patch_size
        self.processor = TimmProcessor((3, size, size))
        self.stem = nn.Sequential(*(_halving(i, o) for i, o in itertools.pairwise(widths)))
        self.patch = nn.Conv2d(widths[-1], dim, patch_size // halved, patch_size // halved)
        side = size // patch_size
        self.position = nn.Parameter(torch.zeros(1, dim, side, side))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.norm = nn.LayerNorm(dim)

    def blocks(self) -> Sequence[nn.Module]:
        return [*self.stem, self.patch]

    def forward(self, pixel_values: Tensor) -> Features:
        """pixel_values `[B, 3, H, W]` -> tokens `[B, T, D]`; positions follow another size."""
        height, width = pixel_values.shape[2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"patches: a picture of {height} x {width} px, and patch_size {self.patch_size} "
                "divides them not; choose a size that it divides"
            )
        patches = self.patch(self.stem(pixel_values))  # [B, D, h, w]
        position: Tensor = self.position
        if patches.shape[2:] != position.shape[2:]:
            position = F.interpolate(position, patches.shape[2:], mode="bicubic", antialias=True)
        features = from_map(patches + position, (height, width), self.patch_size)
        return features.replace(tokens=self.norm(features.tokens))


def _halving(in_width: int, out_width: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_width, out_width, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_width), nn.ReLU())
