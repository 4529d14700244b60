"""Records of volumes: cut to the grid that holds what is real, and brought to one grid again.

Legend: `T` tokens, `D` width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .shard import Record


def crop_to_content(tokens: np.ndarray, mask: np.ndarray, grid: tuple[int, ...]) -> Record:
    """tokens `[T, D]`, mask `[T]` -> those of the smallest grid from the first corner that holds
    every real one, and the `grid`; a `mask` where some of its tokens are padding."""
    real = mask.reshape(grid)
    ends = tuple(int(places.max()) + 1 for places in real.nonzero()) if real.any() else grid
    box = tuple(slice(0, end) for end in ends)
    inner = np.ascontiguousarray(real[box]).reshape(-1)
    kept = np.ascontiguousarray(tokens.reshape(*grid, -1)[box]).reshape(len(inner), -1)
    record: Record = {"tokens": kept, "grid": np.array(ends, np.int64)}
    return record if inner.all() else {**record, "mask": inner}


def pad_to_common_grid(records: Sequence[Record]) -> Sequence[Record]:
    """Records of several axes and an affine whose grids differ, padded at the far ends to the
    largest; others as they are."""
    if not all("affine" in record and "grid" in record for record in records):
        return records
    grids = {tuple(record["grid"].tolist()) for record in records}
    axes = {len(grid) for grid in grids}
    whole = len(grids) == 1 and not any("mask" in record for record in records)
    if whole or len(axes) > 1 or 1 in axes:
        return records
    largest = tuple(max(sizes) for sizes in zip(*grids, strict=True))
    return [_padded(record, largest) for record in records]


def _padded(record: Record, largest: tuple[int, ...]) -> Record:
    grid = tuple(record["grid"].tolist())
    tokens, length = record["tokens"], math.prod(grid)
    mask = record.get("mask", np.arange(length) < len(tokens))
    whole = np.zeros((*largest, tokens.shape[-1]), tokens.dtype)
    real = np.zeros(largest, bool)
    box = tuple(slice(0, size) for size in grid)
    flat = np.zeros((length, tokens.shape[-1]), tokens.dtype)
    flat[: len(tokens)] = tokens
    whole[box], real[box] = flat.reshape(*grid, -1), mask.reshape(grid)
    return {
        **record,
        "tokens": whole.reshape(-1, tokens.shape[-1]),
        "mask": real.reshape(-1),
        "grid": np.array(largest, np.int64),
    }
