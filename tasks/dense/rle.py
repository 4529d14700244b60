"""A mask as JSON: where its runs of ones begin and how long they are, and where it lies.

Legend: `n` axes of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def encode_rle(mask: Tensor, matrix: Tensor) -> dict[str, Any]:
    """bool `[*grid]` and its matrix `[n + 1, n + 1]` to the world -> `grid`, `affine`, `runs` (a
    start and a length each, the last axis first)."""
    flat = mask.flatten().to(torch.int8).cpu()
    turns = torch.diff(flat, prepend=flat.new_zeros(1), append=flat.new_zeros(1)).nonzero()
    starts, ends = turns.flatten()[::2], turns.flatten()[1::2]
    found = torch.stack([starts, ends - starts], 1).flatten().tolist()
    return {"grid": list(mask.shape), "affine": matrix.cpu().tolist(), "runs": found}


def decode_rle(told: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """What `runs` told: bool `[*grid]`, and the matrix."""
    flat = torch.zeros(math.prod(told["grid"]), dtype=torch.bool)
    for start, length in zip(told["runs"][::2], told["runs"][1::2], strict=True):
        flat[start : start + length] = True
    return flat.reshape(told["grid"]), torch.tensor(told["affine"])
