"""A vision transformer on volumes: any grid, any subset of its contrasts, padding kept out.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, with patches of three axes; the shape
of Decipher-MR's encoder is ViT-B (dim 768, depth 12, heads 12), which is the default here. With
`stem`, convolutions come first (Xiao et al., "Early Convolutions Help Transformers See
Better", 2021); small models learn far sooner with them.

Legend: `B` batch, `C` contrasts, `D` width, `X Y Z` voxels, `x y z` tokens, `T = x y z`, `P`
leading tokens (CLS and registers).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from ...base import Count, Encoder, Features, Fraction, LayerHook, PositiveFloat, PositiveInt
from ...features import split_signal
from ..processor import VolumeProcessor
from .patch_embed3d import Patches3D

Size = tuple[int, int, int]


class ViT3D(Encoder):
    """size: voxels of a prepared volume. patch: voxels of a token. contrasts: how many channels
    there may be; an embedding each marks those that are present. stem: widths
    of convolutions before the patches, each halving the axes. registers: further leading tokens.
    spacing, percentiles, crop: see `VolumeProcessor`.
    """

    supports = frozenset({"hidden_states", "token_mask", "layer_hooks", "targets"})

    def __init__(
        self,
        *,
        size: Size = (96, 96, 96),
        patch: Size = (16, 16, 16),
        dim: PositiveInt = 768,
        depth: Count = 12,
        heads: PositiveInt = 12,
        mlp_ratio: PositiveFloat = 4.0,
        contrasts: PositiveInt = 1,
        stem: list[PositiveInt] | None = None,
        registers: Count = 0,
        layer_scale: PositiveFloat | None = 1e-5,
        drop_path: Fraction = 0.0,
        spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None,
        percentiles: tuple[float, float] = (0.5, 99.5),
        crop: bool = True,
    ) -> None:
        super().__init__()
        for name, value in {
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "contrasts": contrasts,
        }.items():
            if value < 1:
                raise ValueError(f"{name}: found {value}, expected at least 1")
        if dim % heads:
            raise ValueError(f"heads: {heads} do not divide dim {dim}")
        if any(s < p for s, p in zip(size, patch, strict=True)):
            raise ValueError(f"size: {size} voxels hold no patch of {patch}; enlarge size")
        self.dim = dim
        self.processor = VolumeProcessor(size, spacing, contrasts, percentiles, crop=crop)
        self.patches = Patches3D(contrasts, dim, patch, stem or [])
        grid = tuple(math.ceil(s / p) for s, p in zip(size, patch, strict=True))
        self.position = nn.Parameter(torch.zeros(1, dim, *grid))
        self.leading = nn.Parameter(torch.zeros(1, 1 + registers, dim))
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.contrast = nn.Parameter(torch.zeros(contrasts, dim))
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.layers = nn.ModuleList(
            Block(dim, heads, mlp_ratio, qkv_bias=True, init_values=layer_scale, drop_path=rate)
            for rate in rates
        )
        self.norm = nn.LayerNorm(dim)
        for parameter in (self.position, self.leading, self.mask_token, self.contrast):
            nn.init.trunc_normal_(parameter, std=0.02)

    def blocks(self) -> Sequence[nn.Module]:
        return [self.patches, *self.layers]

    def collate(self, samples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Volumes of any shapes, padded at the far ends; padding is not `inside`. Where
        shapes differ, `extent [B, 3]` holds the voxels of each."""
        shapes = [s["inside"].shape for s in samples]
        shape = [max(sizes) for sizes in zip(*shapes, strict=True)]
        batch = {
            "volume": torch.stack([padded(s["volume"], shape) for s in samples]),
            "inside": torch.stack([padded(s["inside"], shape) for s in samples]),
            "contrasts": torch.stack([s["contrasts"] for s in samples]),
            "affine": torch.stack([s["affine"] for s in samples]),
        }
        return batch if len(set(shapes)) == 1 else {**batch, "extent": torch.tensor(shapes)}

    def forward(
        self,
        volume: Tensor,
        inside: Tensor,
        contrasts: Tensor,
        affine: Tensor,
        extent: Tensor | None = None,
        hidden_states: Sequence[int] = (),
        token_mask: Tensor | None = None,
        layer_hooks: Mapping[int, LayerHook] | None = None,
    ) -> Features:
        """volume `[B, C, X, Y, Z]`, inside `[B, X, Y, Z]` -> Features `[B, T, D]`, grid (x, y, z);
        a token is real where any of its voxels is inside. `spacing` and `origin` are in voxels.
        extent `[B, 3]`: voxels of each sample, where padding makes them one shape.

        layers: blocks from 0, or from the end (-1).
        """
        present = contrasts[:, :, None, None, None]
        tokens, real = self.patches(volume * present, inside)  # [B, D, x, y, z], [B, x, y, z]
        grid = tuple(tokens.shape[2:])
        tokens, mask = tokens.flatten(2).transpose(1, 2), real.flatten(1)
        if token_mask is not None:
            tokens = torch.where(token_mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        position = self._positions(grid) if extent is None else self._each_positions(grid, extent)
        tokens = tokens + position + (contrasts.to(tokens.dtype) @ self.contrast)[:, None]
        geometry = self._geometry(grid, affine)
        chosen = [self._layer(i) for i in hidden_states]
        hooks = {self._layer(i): hook for i, hook in (layer_hooks or {}).items()}
        hidden, layers = self._through(tokens, mask, set(chosen), hooks)
        prefix = self.leading.shape[1]

        def features(states: Tensor) -> Features:
            states = self.norm(states)
            tokens = states[:, prefix:].masked_fill(~mask[..., None], 0)
            return Features(tokens, mask, pooled=states[:, 0], **geometry)

        return features(hidden).replace(hidden_states=tuple(features(layers[i]) for i in chosen))

    @property
    def target_dim(self) -> int:
        return int(self.contrast.shape[0] * math.prod(self.patches.patch))

    def targets(
        self, volume: Tensor, inside: Tensor, contrasts: Tensor, affine: Tensor, **more: Tensor
    ) -> Features:
        """Return the values of each patch of the volume `[B, C, X, Y, Z]`."""
        patch = self.patches.patch
        grid = tuple(-(-n // p) for n, p in zip(volume.shape[2:], patch, strict=True))
        values = split_signal(volume * contrasts[:, :, None, None, None], grid, patch)
        mask = split_signal(inside[:, None].float(), grid, patch).any(-1)
        return Features(values, mask, **self._geometry(grid, affine))

    def _layer(self, number: int) -> int:
        depth = len(self.layers)
        if not -depth <= number < depth:
            raise ValueError(f"vit3d: there is no layer {number}; it has {depth}")
        return number % depth

    def _through(
        self,
        tokens: Tensor,
        mask: Tensor,
        layer_indices: set[int],
        layer_hooks: Mapping[int, LayerHook],
    ) -> tuple[Tensor, dict[int, Tensor]]:
        prefix, layers = self.leading.shape[1], {}
        hidden = torch.cat([self.leading.expand(len(tokens), -1, -1), tokens], 1)  # [B, P + T, D]
        visible = torch.cat([mask.new_ones(len(mask), prefix), mask], 1)
        hide = torch.zeros(visible.shape, dtype=hidden.dtype, device=hidden.device)
        hide = hide.masked_fill(~visible, torch.finfo(hidden.dtype).min)[:, None, None]
        for number, block in enumerate(self.layers):
            hidden = block(hidden, attn_mask=hide)
            if number in layer_hooks:
                changed = layer_hooks[number](hidden[:, prefix:], mask)
                hidden = torch.cat([hidden[:, :prefix], changed], 1)
            if number in layer_indices:
                layers[number] = hidden
        return hidden, layers

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        """Return `[1, T, D]` learned on one grid, interpolated on others."""
        position: Tensor = self.position
        if tuple(position.shape[2:]) != grid:
            position = F.interpolate(position, grid, mode="trilinear", align_corners=False)
        return position.flatten(2).transpose(1, 2)

    def _each_positions(self, grid: tuple[int, ...], extent: Tensor) -> Tensor:
        """Return `[B, T, D]` as `_positions`, on the grid that each sample of `extent [B, 3]`
        voxels has by itself, within the padded one."""
        patch = extent.new_tensor(self.patches.patch)
        sizes = (extent + patch - 1).div(patch, rounding_mode="floor")  # [B, 3]
        axes = [torch.arange(n, device=extent.device) for n in grid]
        index = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)  # [x, y, z, 3]
        where = (2 * index + 1) / sizes[:, None, None, None] - 1  # in the table, from -1 to 1
        table = self.position.expand(len(extent), -1, -1, -1, -1)
        where = where.flip(-1).to(table.dtype)
        positions = F.grid_sample(table, where, padding_mode="border", align_corners=False)
        return positions.flatten(2).transpose(1, 2)

    def _geometry(self, grid: tuple[int, ...], affine: Tensor) -> dict[str, Any]:
        step = tuple(float(p) for p in self.patches.patch)
        origin = tuple((p - 1) / 2 for p in step)
        return {"grid": grid, "spacing": step, "origin": origin, "affine": affine}


def padded(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the three last axes up to a shape, with zeros."""
    missing = [n - m for n, m in zip(shape, values.shape[-3:], strict=True)]
    return F.pad(values, [0, missing[2], 0, missing[1], 0, missing[0]])
