"""What the step-wise tokenizers share: bounds of a joint's samples, and chunks at rest in them.

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
        """What was saved; ValueError where it is for another number of joints."""
        validation.same_dof(dof, len(state["low"]))
        return cls(np.asarray(state["low"]), np.asarray(state["high"]))

    def shrink(self, values: Tensor) -> Tensor:
        """`[..., dof]` in the robot's units -> about [-1, 1]; not clipped."""
        offset, factor, _, _ = self._tensors(values)
        return torch.addcmul(offset, values, factor)

    def stretch(self, values: Tensor) -> Tensor:
        """The way back."""
        _, _, middle, half = self._tensors(values)
        return torch.addcmul(middle, values, half)

    def _tensors(self, like: Tensor) -> list[Tensor]:
        return [torch.as_tensor(a, dtype=like.dtype, device=like.device) for a in self._arrays]


def finite(chunks: Tensor, dof: int | None, padding: Tensor | None) -> Tensor:
    """`[B, steps, dof]` checked; padded samples are the last real one."""
    values, real = validation.chunks(chunks, dof, padding)
    validation.refuse_infinite(values)
    return validation.forward_fill(values, real)


def check_no_start(start: Tensor | None) -> None:
    """ValueError where a start is given to a tokenizer that pins none."""
    if start is not None:
        raise ValueError("start: this tokenizer pins no start; leave it out, or use bspline")
