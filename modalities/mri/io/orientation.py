"""Where a volume lies: orientation, spacing, and the checks that every source goes through.

Legend: `C` channels, `X Y Z` voxels towards right, anterior, superior. An affine takes voxel
indices to mm; world coordinates are RAS, as in NIfTI.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from ...base import ReadError

LEAST = 1e-4
"""mm; a smaller voxel edge is a damaged header."""


def oriented(
    values: np.ndarray,
    affine: np.ndarray,
    source: object,
    present: tuple[bool, ...] = (),
    *,
    flat: bool = False,
) -> MetaTensor:
    """`[C, X, Y, Z]` in any orientation -> the canonical volume: float32, axes nearest to RAS.

    The meta data keep the source's own affine and shape (`original_affine`,
    `original_shape`), and which channels are there (`contrasts`). Raise ReadError for a
    singular affine, values that are not finite, and, unless `flat`, a volume of one value.
    """
    check_affine(affine, source)
    if values.ndim != 4 or min(values.shape) < 1 or sum(n > 1 for n in values.shape[1:]) < 3:
        raise ReadError(
            source, f"has the shape {values.shape[1:]}", "a volume with three axes longer than 1"
        )
    reorientation = io_orientation(affine)
    shape = values.shape[1:]
    axes = np.concatenate([[[0, 1]], reorientation + [[1, 0]] * 3])  # the channels stay in front
    turned = apply_orientation(values, axes)
    data = np.array(turned, dtype=np.float32, order="K")
    _check_values(data, source, flat)
    meta: dict[str, Any] = {
        "original_affine": torch.from_numpy(np.array(affine, dtype=np.float64)),
        "original_shape": shape,
        "contrasts": present or (True,) * len(data),
    }
    return MetaTensor(
        torch.from_numpy(data), torch.from_numpy(affine @ inv_ornt_aff(reorientation, shape)), meta
    )


def check_affine(affine: np.ndarray, source: object) -> None:
    """Refuse an affine that does not place the voxels."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ReadError(source, "its affine is not a finite 4 x 4 matrix", "a whole header")
    edges = spacing(affine)
    if edges.min() < LEAST:
        measured = " x ".join(f"{edge:g}" for edge in edges)
        raise ReadError(
            source, f"its voxels measure {measured} mm", "edges above 0 mm in the header"
        )
    if abs(np.linalg.det(affine[:3, :3])) < 1e-4 * edges.prod():
        raise ReadError(
            source, "its affine is singular: two axes point the same way", "three directions"
        )


def spacing(affine: np.ndarray) -> np.ndarray:
    """Edges of a voxel in mm, an axis."""
    lengths: np.ndarray = np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(0))
    return lengths


def _check_values(data: np.ndarray, source: object, flat: bool) -> None:
    low, high = float(data.min()), float(data.max())
    if not np.isfinite([low, high]).all():
        bad = int((~np.isfinite(data)).sum())
        raise ReadError(
            source, f"{bad:,} of {data.size:,} voxels are not finite", "numbers; repair the file"
        )
    if low == high and not flat:
        raise ReadError(source, f"every voxel is {low:g}", "a volume with something in it")


def rotation(angles: np.ndarray) -> np.ndarray:
    """Return `[3, 3]` turns about the first, then the second, then the third axis, in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        around_axis, (i, j) = np.eye(3), [k for k in range(3) if k != axis]
        around_axis[i, i] = around_axis[j, j] = np.cos(angle)
        around_axis[i, j], around_axis[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ around_axis
    return matrix
