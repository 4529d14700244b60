"""Predictions of a volume, in the source's own space: masks and maps as NIfTI, boxes in mm.

Legend: `X Y Z` voxels of the sample, `U V W` of the source as its file has them.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from .processor import lookup, pull


def to_source(values: Tensor, affine: Tensor, source: MetaTensor, *, mask: bool = True) -> Tensor:
    """`[X, Y, Z]` on a sample's grid -> `[U, V, W]` on the source's own, in its own orientation.

    mask: by the nearest voxel; else by the neighbours' mean. Zero outside the sample.
    """
    source_affine, shape = source.meta["original_affine"], tuple(source.meta["original_shape"])
    grid = lookup(torch.as_tensor(source_affine), shape, affine, tuple(values.shape))
    resampled = pull(values[None].float(), grid, "nearest" if mask else "bilinear")[0]
    return resampled.to(values.dtype) if mask else resampled


def save(path: str | Path, values: Tensor, affine: Tensor, source: MetaTensor) -> None:
    """Write a mask or map of a sample's grid as NIfTI on the source's own grid.

    Integers and bools are masks (uint8), floats are maps. The affine is the source's.
    """
    is_mask = not values.is_floating_point()
    placed = to_source(values, affine, source, mask=is_mask).numpy()
    image = nibabel.Nifti1Image(
        placed.astype(np.uint8 if is_mask else np.float32),
        np.asarray(source.meta["original_affine"], dtype=np.float64),
    )
    image.header.set_xyzt_units("mm")
    nibabel.save(image, str(path))


def write(path: Path, values: Tensor, affine: Tensor, source: MetaTensor) -> Path:
    """As `save`, with the suffix of the format; return the file."""
    file = path.with_name(f"{path.name}.nii.gz")
    save(file, values, affine, source)
    return file


def box_of(mask: Tensor, affine: Tensor) -> Tensor | None:
    """Return `[6]` the box of a mask `[X, Y, Z]` in mm, RAS: low corner, high corner, outer edges
    of its voxels; None for an empty mask."""
    voxels = mask.nonzero().double()
    if not len(voxels):
        return None
    low, high = voxels.amin(0) - 0.5, voxels.amax(0) + 0.5
    picks = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]).double()
    corners = low + picks * (high - low)  # [8, 3]
    world = corners @ affine.double()[:3, :3].T + affine.double()[:3, 3]
    return torch.cat([world.amin(0), world.amax(0)])
