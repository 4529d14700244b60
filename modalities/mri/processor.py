"""Volumes -> samples of one spacing and size, and the way back into the source's own space.

Every spatial step is an affine map: its affine holds the position of the sample's voxels in mm,
so a mask or a box goes back without a history of the steps.

Legend: `C` contrasts, `X Y Z` voxels of the sample, `U V W` of the source, both RAS.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from ..base import Processor, ReadError, Sample
from .io import spacing as edges_of

BLUR = 2.0
"""Shrinking an axis by more than this loses detail that may matter."""

CUT = 0.01
"""Share of the body that may lie outside a sample without a warning: bright voxels far away."""

SAME = 1e-4
"""Relative difference of two spacings that are taken for one."""

TIE = 1e-3
"""Voxels by which the nearest one is looked up aside, so that a place in the middle of two always
goes to the same side."""


@dataclass
class VolumeProcessor(Processor):
    """Resample to `spacing` mm, crop to the foreground, clip at `percentiles`, z-score over the
    foreground, centre in `size` voxels.

    contrasts: channels of a sample; a source with fewer gets zeros for the rest. foreground:
    share of the range above the darkest value from which a voxel counts as body. spacing None
    keeps the source's own, made coarser where `size` voxels of it do not hold the body. A
    spacing that is given stays, and the rest is cut off; both are reported in a warning.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float] | None = None
    contrasts: int = 1
    percentiles: tuple[float, float] = (0.5, 99.5)
    foreground: float = 0.1
    crop: bool = True

    def __post_init__(self) -> None:
        if min(self.size) < 1 or (self.spacing is not None and min(self.spacing) <= 0):
            raise ValueError(
                f"size, spacing: found {self.size} and {self.spacing}, expected numbers above 0"
            )
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(
                f"percentiles: found {low} and {high}, expected 0 <= low < high <= 100"
            )

    def prepare(self, raw: Any) -> Sample:
        """`volume` float32 `[C, X, Y, Z]` (0 = background), `inside` bool `[X, Y, Z]` (False =
        beyond the source), `contrasts` bool `[C]`, `affine` float32 `[4, 4]` (voxel to mm)."""
        values, source = raw.as_tensor().float(), raw.affine.double()
        present = self._present(raw, len(values))
        volume = values.new_zeros(self.contrasts, *values.shape[1:])
        volume[: len(values)] = values
        body = self._body(volume[present])
        affine = self._placed(source, body)
        self._warn(source, affine, tuple(values.shape[1:]))
        affine = self._holding(source, affine, body)
        grid = lookup(affine, self.size, source, tuple(values.shape[1:]))
        inside = (grid.abs() <= 1 + 1e-6).all(-1)
        volume = pull(volume, grid) * inside
        body = (pull(body[None].float(), grid)[0] >= 0.5) & inside
        volume[present] = torch.stack([self._scored(channel, body) for channel in volume[present]])
        return {
            "volume": volume,
            "inside": inside,
            "contrasts": present,
            "affine": affine.float(),
        }

    def _present(self, raw: Any, count: int) -> Tensor:
        if count > self.contrasts:
            raise ReadError(
                raw.meta.get("filename_or_obj", raw),
                f"has {count} channels",
                f"at most {self.contrasts} (contrasts: {count} takes them all)",
            )
        present = list(raw.meta.get("contrasts", (True,) * count))
        return torch.tensor(present + [False] * (self.contrasts - count))

    def _body(self, channels: Tensor) -> Tensor:
        """Return `[U, V, W]` bool: where any contrast is brighter than the background, and so are
        its neighbours on average (not so in air's noise), and what that encloses (fluid is
        black)."""
        foreground = np.zeros(channels.shape[1:], dtype=bool)
        for channel in channels:
            low, high = _quantiles(channel.flatten(), self.percentiles)
            around = ndimage.uniform_filter(channel.numpy(), 3, mode="nearest")
            foreground |= np.minimum(channel.numpy(), around) > low + self.foreground * (high - low)
        return torch.from_numpy(ndimage.binary_fill_holes(foreground))

    def _placed(self, source: Tensor, body: Tensor, scale: float = 1.0) -> Tensor:
        """Return the sample's affine: its own spacing, times `scale`, the body's box in the middle.
        Along axes whose spacing is the source's, its voxels are those of the source."""
        edges = torch.from_numpy(edges_of(source.numpy()))
        target_spacing = edges if self.spacing is None else torch.tensor(self.spacing).double()
        target_spacing = target_spacing * scale
        last = torch.tensor(body.shape).double() - 1
        low, high = torch.zeros(3).double(), last
        if self.crop and bool(body.any()):
            voxels = body.nonzero().double()
            low, high = voxels.amin(0), voxels.amax(0)
        middle = (low + high) / 2
        affine = source.clone()
        affine[:3, :3] = source[:3, :3] / edges * target_spacing
        centre = source[:3, :3] @ middle + source[:3, 3]
        half = (torch.tensor(self.size).double() - 1) / 2
        affine[:3, 3] = centre - affine[:3, :3] @ half
        first = torch.linalg.inv(source)[:3] @ affine[:, 3]  # the first voxel, in the source's
        same = (target_spacing / edges - 1).abs() < SAME
        first = torch.where(same, (first - 0.25).round(), first)  # halves go down, always
        affine[:3, 3] = source[:3, :3] @ first + source[:3, 3]
        return affine

    def _warn(self, source: Tensor, affine: Tensor, shape: tuple[int, ...]) -> None:
        shrunk = edges_of(affine.numpy()) / edges_of(source.numpy())
        if self.spacing is not None and shrunk.max() > BLUR:
            axis = int(shrunk.argmax())
            warnings.warn(
                f"spacing: axis {'xyz'[axis]} shrinks by {shrunk[axis]:.1f} "
                f"({shape[axis]} voxels of {edges_of(source.numpy())[axis]:.2g} mm to "
                f"{self.spacing[axis]:.2g} mm); detail below that is lost",
                stacklevel=3,
            )

    def _holding(self, source: Tensor, affine: Tensor, body: Tensor) -> Tensor:
        """Return the affine, coarser where the sample would not hold the body and no spacing was
        requested; warn of it, or of how much of the body lies outside."""
        indices = body.nonzero().double()
        if not len(indices):
            return affine
        to_target = torch.linalg.inv(affine) @ source
        voxels = indices @ to_target[:3, :3].T + to_target[:3, 3]
        size = torch.tensor(self.size)
        inside = ((voxels > -0.5 - SAME) & (voxels < size - 0.5 + SAME)).all(1).double().mean()
        if float(inside) >= 1 - CUT:
            return affine
        edges = edges_of(affine.numpy())
        extent = (voxels.amax(0) - voxels.amin(0) + 1) * torch.from_numpy(edges)
        line = (
            f"size: {_times(self.size)} voxels of {_times(edges)} mm hold {float(inside):.0%} "
            f"of the body, which measures {_times(extent.tolist())} mm; "
        )
        if self.spacing is None:
            away = (voxels - (size - 1) / 2).abs().amax(0) + 0.5
            affine = self._placed(source, body, float((away / size * 2).max()))
            coarse = _times(edges_of(affine.numpy()))
            line += f"it is read at {coarse} mm: enlarge size for more detail, or set spacing"
        else:
            line += "the rest is cut off: enlarge size, or set a coarser spacing"
        warnings.warn(line, stacklevel=3)
        return affine

    def _scored(self, channel: Tensor, body: Tensor) -> Tensor:
        """Mean 0 and deviation 1 over the body; the rest is 0, as padding is."""
        values = channel[body]
        if values.numel() < 2:
            return torch.zeros_like(channel)
        low, high = _quantiles(values, self.percentiles)
        clipped = channel.clamp(low, high)
        values = clipped[body]
        return torch.where(body, (clipped - values.mean()) / values.std().clamp(min=1e-6), 0.0)


def _times(numbers: Iterable[float]) -> str:
    return " x ".join(f"{number:.3g}" for number in numbers)


def _quantiles(values: Tensor, percentiles: tuple[float, float]) -> tuple[float, float]:
    quantiles = np.percentile(values.numpy(), percentiles)
    return float(quantiles[0]), float(quantiles[1])


def lookup(
    affine: Tensor, shape: tuple[int, ...], source: Tensor, source_shape: tuple[int, ...]
) -> Tensor:
    """Return where the voxels of one space lie in another: `[X, Y, Z, 3]`, `grid_sample`'s
    coordinates.

    affine, shape: the space that is filled. source, source_shape: the space that is read.
    """
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)  # [X, Y, Z, 3]
    to_source = torch.linalg.inv(source.double()) @ affine.double()
    indices = voxels @ to_source[:3, :3].T + to_source[:3, 3]
    last = torch.tensor(source_shape).double() - 1
    normalized = torch.where(last > 0, 2 * indices / last.clamp(min=1) - 1, 0.0)
    return normalized.flip(-1).float()  # grid_sample counts from the last axis


def pull(volume: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """Return `[C, U, V, W]` read at a `lookup`: `[C, X, Y, Z]`; zeros outside."""
    if mode == "nearest":
        last = grid.new_tensor(volume.shape[1:]).flip(0) - 1
        grid = grid - 2 * TIE / last.clamp(min=1)
    sampled: Tensor = F.grid_sample(
        volume[None].float(), grid[None], mode=mode, padding_mode="zeros", align_corners=True
    )
    return sampled[0]
