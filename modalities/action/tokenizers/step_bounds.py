"""Bounds of a joint's samples, and checks of chunks, for the step-wise tokenizers.

Legend: `B` chunks, `steps` samples, `dof` joints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import validation
from .quantiles import scale


class Bounds:
    """Quantiles `low`, `high [dof]`: chunks <-> [-1, 1], where a constant joint is 0."""

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self.low, self.high = low, high
        middle, inverse = (low + high) / 2, scale(low, high)
        self._arrays = (-2 * middle * inverse, 2 * inverse, middle, (high - low) / 2)

    @classmethod
    def of_state(cls, state: Mapping[str, Any], dof: int | None) -> Bounds:
        """Restore saved bounds. Raise ValueError if they are for another number of joints."""
        validation.same_dof(dof, len(state["low"]))
        return cls(np.asarray(state["low"]), np.asarray(state["high"]))

    def shrink(self, values: Tensor) -> Tensor:
        """Scale `[..., dof]` to about [-1, 1], without clipping."""
        offset, factor, _, _ = self._tensors(values)
        return torch.addcmul(offset, values, factor)

    def stretch(self, values: Tensor) -> Tensor:
        """Invert `shrink`."""
        _, _, middle, half = self._tensors(values)
        return torch.addcmul(middle, values, half)

    def _tensors(self, like: Tensor) -> list[Tensor]:
        return [torch.as_tensor(a, dtype=like.dtype, device=like.device) for a in self._arrays]


def finite(chunks: Tensor, dof: int | None, padding: Tensor | None) -> Tensor:
    """Return checked `[B, steps, dof]`; padded samples repeat the last real one."""
    values, real = validation.chunks(chunks, dof, padding)
    validation.refuse_infinite(values)
    return validation.forward_fill(values, real)


def check_no_start(start: Tensor | None) -> None:
    """Raise ValueError if a start is passed to a tokenizer without `fixed_start`."""
    if start is not None:
        raise ValueError("start: this tokenizer pins no start; leave it out, or use bspline")
