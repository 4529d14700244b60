"""What encoders of series share: padded batches of values and masks, and patches of them.

Legend: `B` batch, `C` channels, `N` samples, `T` tokens, `P` samples of a patch, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...base import Encoder
from ..preprocessing import Preprocessing, SeriesProcessor


class SeriesEncoder(Encoder):
    """preprocessing: fitted before; it knows the channels and the rate."""

    def __init__(self, preprocessing: Preprocessing, least: int = 1) -> None:
        super().__init__()
        if not preprocessing.names:
            raise ValueError("preprocessing: is not fitted, so that the channels are unknown")
        self.channels = len(preprocessing.names)
        self.rate = preprocessing.fitted_rate
        self.processor = SeriesProcessor(preprocessing, least)

    def places(self, patch: int, stride: int) -> dict[str, Any]:
        """Return `spacing` and `origin` of tokens along time in s; nothing without a rate."""
        if self.rate is None:
            return {}
        return {"spacing": (stride / self.rate,), "origin": (patch / 2 / self.rate,)}


def padded(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors `[C, N_i, ...]` as one `[B, C, N, ...]`, zeros on the right."""
    longest = max(tensor.shape[1] for tensor in tensors)
    batch = tensors[0].new_zeros(len(tensors), tensors[0].shape[0], longest, *tensors[0].shape[2:])
    for row, tensor in zip(batch, tensors, strict=True):
        row[:, : tensor.shape[1]] = tensor
    return batch
