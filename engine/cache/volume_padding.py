"""Records of volumes: cut to the grid of the real voxels, and padded to one grid again.

Legend: `T` tokens, `D` width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...modalities.groups import PER_TOKEN
from .shard import Record


def crop_to_content(tokens: np.ndarray, mask: np.ndarray, grid: tuple[int, ...]) -> Record:
    """tokens `[T, D]`, mask `[T]` -> those of the smallest grid from the first corner that holds
    every real one, and the `grid`; a `mask` where some of its tokens are padding."""
    real = mask.reshape(grid)
    ends = tuple(int(indices.max()) + 1 for indices in real.nonzero()) if real.any() else grid
    box = tuple(slice(0, end) for end in ends)
    inner = np.ascontiguousarray(real[box]).reshape(-1)
    content = np.ascontiguousarray(tokens.reshape(*grid, -1)[box]).reshape(len(inner), -1)
    record: Record = {"tokens": content, "grid": np.array(ends, np.int64)}
    return record if inner.all() else {**record, "mask": inner}


def pad_to_common_grid(records: Sequence[Record]) -> Sequence[Record]:
    """Records of several axes and an affine whose grids differ, padded at the far ends to the
    largest; others are unchanged, and those whose tokens have positions."""
    if not all("affine" in r and "grid" in r and "positions" not in r for r in records):
        return records
    grids = {tuple(record["grid"].tolist()) for record in records}
    axes = {len(grid) for grid in grids}
    unpadded = len(grids) == 1 and not any("mask" in record for record in records)
    if unpadded or len(axes) > 1 or 1 in axes:
        return records
    largest = tuple(max(sizes) for sizes in zip(*grids, strict=True))
    return [_padded(record, largest) for record in records]


def _padded(record: Record, largest: tuple[int, ...]) -> Record:
    grid = tuple(record["grid"].tolist())
    mask = record.get("mask", np.arange(math.prod(grid)) < len(record["tokens"]))
    padded = {**record, "mask": mask, "grid": np.array(largest, np.int64)}
    for name in (name for name in PER_TOKEN if name in padded):
        padded[name] = _pad_grid(padded[name], grid, largest)
    return padded


def _pad_grid(values: np.ndarray, grid: tuple[int, ...], largest: tuple[int, ...]) -> np.ndarray:
    """Return values `[T, ...]` of the first tokens of a grid as `[prod(largest), ...]`."""
    tail = values.shape[1:]
    flat = np.zeros((math.prod(grid), *tail), values.dtype)
    flat[: len(values)] = values
    padded = np.zeros((*largest, *tail), values.dtype)
    padded[tuple(slice(0, size) for size in grid)] = flat.reshape(*grid, *tail)
    return padded.reshape(-1, *tail)
