"""Run-length encoding of masks as JSON, with their affine.

Legend: `n` axes of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def encode_rle(mask: Tensor, matrix: Tensor) -> dict[str, Any]:
    """Return `grid`, `affine` and `runs` (a start and a length each, the last axis first) of a
    mask, bool `[*grid]`, and its matrix `[n + 1, n + 1]` to the world."""
    flat = mask.flatten().to(torch.int8).cpu()
    turns = torch.diff(flat, prepend=flat.new_zeros(1), append=flat.new_zeros(1)).nonzero()
    starts, ends = turns.flatten()[::2], turns.flatten()[1::2]
    runs = torch.stack([starts, ends - starts], 1).flatten().tolist()
    return {"grid": list(mask.shape), "affine": matrix.cpu().tolist(), "runs": runs}


def decode_rle(encoded: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the mask, bool `[*grid]`, and the matrix of an encoded mask."""
    flat = torch.zeros(math.prod(encoded["grid"]), dtype=torch.bool)
    for start, length in zip(encoded["runs"][::2], encoded["runs"][1::2], strict=True):
        flat[start : start + length] = True
    return flat.reshape(encoded["grid"]), torch.tensor(encoded["affine"])
