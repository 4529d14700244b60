"""Volumes through an encoder of pictures, slice by slice, with attention over the slices.

The 2.5-D baseline of Decipher-MR's comparisons (DINOv2, BiomedCLIP): which encoder, and with
which weights, is the inner section of the recipe.

Legend: `B` batch, `S` slices, `D` width, `h w` tokens of a picture, `x y z` tokens of the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from ...base import Count, Encoder, Features, PositiveFloat, PositiveInt, Processor, Sample
from ..processor import VolumeProcessor

BRIGHTEST = 2.5
"""Deviations from the mean that are white, and black, in a picture."""


@dataclass
class SliceProcessor(Processor):
    """A prepared volume as pictures, each prepared as its encoder wants it."""

    volume: VolumeProcessor
    picture: Processor
    axis: int
    every: int

    def prepare(self, raw: Any) -> Sample:
        """Return the outputs of `picture`, `[S, ...]`, and the volume's `affine`, `size`."""
        sample = self.volume.prepare(raw)
        volume = sample["volume"]
        channels = volume[:3] if len(volume) == 3 else volume[:1].expand(3, -1, -1, -1)
        grey = ((channels / BRIGHTEST + 1) * 127.5).clamp(0, 255).to(torch.uint8)
        slices = grey.movedim(1 + self.axis, 0)[:: self.every]  # [S, 3, u, v]
        pictures = [
            self.picture.prepare(Image.fromarray(s.permute(2, 1, 0).contiguous().numpy()))
            for s in slices
        ]
        stacked = {key: torch.stack([p[key] for p in pictures]) for key in pictures[0]}
        return stacked | {"affine": sample["affine"], "size": torch.tensor(volume.shape[1:])}

    def settings(self) -> dict[str, Any]:
        """Return those of both processors."""
        settings = {"axis": self.axis, "every": self.every, "volume": self.volume.settings()}
        return settings | {
            "picture": {"class": type(self.picture).__name__, **self.picture.settings()}
        }


class Slices(Encoder):
    """encoder: one of pictures. axis: the axis that is cut (2: axial slices). every: take each
    nth slice. depth, heads: of the attention over slices. size, spacing, percentiles, crop,
    contrasts: see `VolumeProcessor`; three contrasts are the colours of a picture, else the first
    is its grey."""

    def __init__(
        self,
        *,
        encoder: Annotated[Encoder, "image"],
        size: tuple[PositiveInt, PositiveInt, PositiveInt] = (96, 96, 96),
        axis: Literal[0, 1, 2] = 2,
        every: PositiveInt = 1,
        depth: Count = 2,
        heads: PositiveInt = 4,
        contrasts: PositiveInt = 1,
        spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None,
        percentiles: tuple[float, float] = (0.5, 99.5),
        crop: bool = True,
    ) -> None:
        super().__init__()
        if every < 1 or depth < 0:
            raise ValueError(f"every, depth: found {every} and {depth}, expected 1 and 0 at least")
        if encoder.dim % heads:
            raise ValueError(f"heads: {heads} do not divide the encoder's width {encoder.dim}")
        self.encoder, self.axis, self.every, self.dim = encoder, axis, every, encoder.dim
        self.batch_invariant = encoder.batch_invariant
        volume = VolumeProcessor(size, spacing, contrasts, percentiles, crop=crop)
        self.size = size
        self.processor = SliceProcessor(volume, encoder.processor, axis, every)
        self.position = nn.Parameter(torch.zeros(len(range(0, size[axis], every)), self.dim))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.across = nn.ModuleList(
            nn.TransformerEncoderLayer(
                self.dim, heads, 4 * self.dim, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(self.dim)

    def blocks(self) -> Sequence[nn.Module]:
        return [*self.encoder.blocks(), *self.across]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return all slices of all samples as one batch of pictures."""
        volume_keys = ("affine", "size")
        pictures = [
            {key: value[i] for key, value in s.items() if key not in volume_keys}
            for s in samples
            for i in range(len(self.position))
        ]
        volume_tensors = {key: torch.stack([s[key] for s in samples]) for key in volume_keys}
        return self.encoder.collate(pictures) | volume_tensors

    def forward(self, affine: Tensor, size: Tensor, **pictures: Tensor) -> Features:
        """`S` pictures a volume -> Features `[B, x y z, D]`: a picture's tokens, each with what its
        slice learned from the others; pooled is the mean of the slices."""
        features = self.encoder(**pictures)
        count, batch = len(self.position), len(affine)
        hidden = features.pool().unflatten(0, (batch, count)) + self.position  # [B, S, D]
        for layer in self.across:
            hidden = layer(hidden)
        grid = features.grid if features.grid is not None else (1, features.tokens.shape[1])
        tokens = features.tokens.unflatten(0, (batch, count)) + hidden[:, :, None]  # [B, S, h w, D]
        tokens = tokens.unflatten(2, grid).transpose(2, 3)  # a picture's rows are the later axis
        tokens = self.norm(tokens.movedim(1, 1 + self.axis))
        geometry = self._geometry(tuple(tokens.shape[1:4]))
        return Features.dense(
            tokens.flatten(1, 3), **geometry, affine=affine, pooled=self.norm(hidden).mean(1)
        )

    def _geometry(self, grid: tuple[int, ...]) -> dict[str, Any]:
        """In voxels of the prepared volume; pictures cover all of it, in any size."""
        step = [n / count for n, count in zip(self.size, grid, strict=True)]
        origin = [(s - 1) / 2 for s in step]
        step[self.axis], origin[self.axis] = float(self.every), 0.0
        return {"grid": grid, "spacing": tuple(step), "origin": tuple(origin)}
