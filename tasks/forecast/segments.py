"""Series as segments, in tensors: what the encoder `segments` holds, taken apart.

Legend: `B` rows, `C` channels, `T` segments, `S` samples of a segment, `H` samples of the future.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from ...modalities.base import Features


@dataclass(frozen=True)
class Segmented:
    """values `[B, C, T, S]` normalized, and whether they were measured. counts: `[B]` segments of
    each row. shift, scale: `[B, C]`, back to the series' units."""

    values: Tensor
    measured: Tensor
    counts: Tensor
    shift: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Features, stream: str) -> Self:
        """Take tokens `[B, C * T, 2 S + 2]` apart. Raise ValueError if they have no grid."""
        if features.grid is None or len(features.grid) > 2:
            raise ValueError(f"inputs.{stream}: its tokens have no grid (channels, segments)")
        grid = (1, *features.grid)[-2:]
        tokens = features.tokens.float().unflatten(1, grid)  # [B, C, T, 2 S + 2]
        mask = features.mask.unflatten(1, grid)
        size = tokens.shape[-1] // 2 - 1
        places = torch.arange(1, grid[1] + 1, device=mask.device)
        last = (mask * places).amax(2)  # [B, C] the last segment with a measured value
        index = (last - 1).clamp(min=0)[..., None, None].expand(-1, -1, 1, 2)
        shift, scale = tokens[..., 2 * size : 2 * size + 2].gather(2, index)[:, :, 0].unbind(-1)
        return cls(
            tokens[..., :size].masked_fill(~mask[..., None], 0),
            (tokens[..., size : 2 * size] > 0.5) & mask[..., None],
            last.amax(1).clamp(min=1),
            shift.double(),
            torch.where(last > 0, scale, 1.0).double(),
        )

    @property
    def within(self) -> Tensor:
        """Return bool `[B, T]`, True up to a row's last segment."""
        steps = torch.arange(self.values.shape[2], device=self.values.device)
        return steps < self.counts[:, None]

    def normalized(self, future: Tensor) -> Tensor:
        """Return `[B, C, H]` of a future `[B, H, C]`. Raise ValueError for other channels."""
        if future.shape[2] != self.values.shape[1]:
            raise ValueError(
                f"forecast: the future has {future.shape[2]} channels, the series "
                f"{self.values.shape[1]}; set channels in the data section"
            )
        values = future.double().transpose(1, 2)
        return ((values - self.shift[..., None]) / self.scale[..., None]).float()

    def denormalized(self, values: Tensor) -> Tensor:
        """Return `[B, C, H]` in the series' units."""
        return values.double() * self.scale[..., None] + self.shift[..., None]

    def last(self, values: Tensor) -> Tensor:
        """Return `[B, C, S]` of `[B, C, T, S]`: those at a row's last segment."""
        index = (self.counts - 1)[:, None, None, None].expand(
            -1, values.shape[1], 1, values.shape[3]
        )
        return values.gather(2, index)[:, :, 0]

    def append(self, segment: Tensor) -> Self:
        """Return the series with a segment `[B, C, S]` more."""
        index = self.counts[:, None, None, None].expand(
            -1, *segment.shape[1:2], 1, segment.shape[2]
        )
        values = nn.functional.pad(self.values, (0, 0, 0, 1)).scatter(2, index, segment[:, :, None])
        seen = nn.functional.pad(self.measured, (0, 0, 0, 1))
        seen = seen.scatter(2, index, torch.ones_like(segment, dtype=torch.bool)[:, :, None])
        return replace(self, values=values, measured=seen, counts=self.counts + 1)


def _at(places: Tensor, segment: Tensor) -> Tensor:
    """Return the index `[B, C, 1, S]` of segments `[B, C, S]` at places `[B]`."""
    return places[:, None, None, None].expand(-1, segment.shape[1], 1, segment.shape[2])


def following(series: Segmented, ahead: Tensor) -> tuple[Tensor, Tensor]:
    """Return the segment `[B, C, T, S]` after each one, and whether its values were measured.

    ahead: `[B, C, H]` normalized, NaN where nothing was measured; it follows the last segment.
    """
    size, width = series.values.shape[3], ahead.shape[2]
    ahead = nn.functional.pad(ahead, (0, max(0, size - width)), value=float("nan"))[..., :size]
    measured = ~ahead.isnan()
    index = _at(series.counts - 1, ahead)
    values = nn.functional.pad(series.values[:, :, 1:], (0, 0, 0, 1))
    values = values.scatter(2, index, ahead.nan_to_num(0.0)[:, :, None])
    seen = nn.functional.pad(series.measured[:, :, 1:], (0, 0, 0, 1))
    return values, seen.scatter(2, index, measured[:, :, None])


def project(in_dim: int, hidden: int, out_dim: int) -> nn.Sequential:
    """Return a linear map, or a perceptron of one hidden layer."""
    if not hidden:
        return nn.Sequential(nn.Linear(in_dim, out_dim))
    return nn.Sequential(nn.Linear(in_dim, hidden), nn.GELU(), nn.Linear(hidden, out_dim))
