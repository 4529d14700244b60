"""Global and local crops of a prepared sample, for self-supervision.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments"
(multi-crop), 2020. A crop is a box of the sample with the sample's proportions, resampled to a
fixed size; pictures and volumes alike. Tensors with the shape of the signal (such as a mask of real
voxels) are cropped with it, others are kept, and the affine is updated.

Legend: `C` channels, `n` axes in space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...modalities.base import TO_SOURCE, Sample

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
Range = tuple[float, float]


@dataclass(frozen=True)
class Crop:
    """A random crop. size: of the crop, for each axis or for all. scale: smallest and largest
    fraction of the sample's content in it."""

    size: int | Sequence[int]
    scale: Range

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a random crop. Raise ValueError if the sample's axes do not fit `size`."""
        extent = spatial_shape(sample)
        size = (self.size,) * len(extent) if isinstance(self.size, int) else tuple(self.size)
        if len(size) != len(extent):
            raise ValueError(
                f"size: {list(size)} has {len(size)} axes, the samples have {len(extent)} "
                f"({' x '.join(map(str, extent))}); give as many"
            )
        edge = rng.uniform(*self.scale) ** (1 / len(extent))
        box = [max(1, min(n, round(n * edge))) for n in extent]
        low = [int(rng.integers(n - wide + 1)) for n, wide in zip(extent, box, strict=True)]
        return crop_and_resize(sample, extent, low, box, size)


def spatial_shape(sample: Sample) -> tuple[int, ...]:
    """Return the spatial shape of a sample's signal: that of its largest tensor `[C, ...]`."""
    tensors = (t for key, t in sample.items() if key != TO_SOURCE)
    signals = [t for t in tensors if t.is_floating_point() and t.ndim > 1]
    if not signals:
        raise ValueError("a sample without a signal with a position in space cannot be cropped")
    return tuple(max(signals, key=torch.numel).shape[1:])


def crop_and_resize(
    sample: Sample,
    extent: Sequence[int],
    low: Sequence[int],
    box: Sequence[int],
    size: Sequence[int],
) -> Sample:
    """Return the box of `box` voxels at `low`, resampled to `size`."""
    region: tuple[Any, ...] = (Ellipsis, *(slice(a, a + n) for a, n in zip(low, box, strict=True)))
    cropped = {
        key: _resized(value[region], size)
        if tuple(value.shape[-len(extent) :]) == tuple(extent) and key != TO_SOURCE
        else value
        for key, value in sample.items()
    }
    if "affine" in sample:
        cropped["affine"] = sample["affine"] @ _crop_affine(low, box, size).to(sample["affine"])
    if TO_SOURCE in sample:  # which counts from the edge of the first pixel, not from its centre
        step = _crop_affine(low, box, size)
        step[:-1, -1] = torch.tensor(list(low), dtype=step.dtype)
        cropped[TO_SOURCE] = sample[TO_SOURCE] @ step.to(sample[TO_SOURCE])
    return cropped


def _resized(values: Tensor, size: Sequence[int]) -> Tensor:
    axes = len(size)
    if tuple(values.shape[-axes:]) == tuple(size):
        return values.clone()
    flat = values.reshape(1, -1, *values.shape[-axes:])
    if values.is_floating_point():
        resized = F.interpolate(flat, list(size), mode=LINEAR[axes], align_corners=False)
    else:
        resized = F.interpolate(flat.float(), list(size), mode="nearest-exact").to(values.dtype)
    return resized.reshape(*values.shape[:-axes], *size)


def _crop_affine(low: Sequence[int], box: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return `[n + 1, n + 1]`, from voxels of the crop to voxels of the sample; the edges of both
    coincide."""
    axes = len(size)
    affine = torch.eye(axes + 1, dtype=torch.float64)
    for i, (first, wide, count) in enumerate(zip(low, box, size, strict=True)):
        affine[i, i] = wide / count
        affine[i, axes] = first + (wide / count - 1) / 2
    return affine
