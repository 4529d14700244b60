"""Segments of a series as they are: a token holds what one channel measured, and nothing trains.

For tasks that embed segments themselves, such as `forecast`.

Legend: `B` batch, `C` channels, `T` segments, `S` samples of a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...base import Features, PositiveInt, Sample
from ..preprocessing import Preprocessing
from .base import SeriesEncoder, padded


class Segments(SeriesEncoder):
    """Tokens `[B, C * T, 2 S + 2]`, the segments of each channel in the order of time; grid
    `(C, T)`. A token holds the `S` normalized values, 0 where none was measured, `S` times whether
    one was, and shift and scale of the channel: `values * scale + shift` are the measured ones.

    segment: samples of a segment. The last segment ends with the series; what remains at the
    beginning is cut off. A segment without a measured value is masked.
    """

    supports = frozenset({"segments"})

    def __init__(self, *, preprocessing: Preprocessing, segment: PositiveInt) -> None:
        super().__init__(preprocessing, least=segment)
        for option in ("channels", "rate"):
            if getattr(preprocessing, option) is not None:
                raise ValueError(
                    f"preprocessing.{option}: the segments and what is compared with them would "
                    f"differ in it; set {option} in the data section"
                )
        self.segment, self.dim = segment, 2 * segment + 2

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return `segments [B, C, T, 2 S + 2]` and `mask [B, C, T]`, padded on the right."""
        parts = [self._segments(sample) for sample in samples]
        segments, mask = (padded([part[i] for part in parts]) for i in range(2))
        return {"segments": segments, "mask": mask}

    def _segments(self, sample: Sample) -> tuple[Tensor, Tensor]:
        first = sample["values"].shape[1] % self.segment
        values, measured = (
            sample[key][:, first:].unflatten(1, (-1, self.segment)) for key in ("values", "mask")
        )
        mask = measured.any(2)  # [C, T]
        ends = torch.stack([sample["shift"], sample["scale"]], 1).to(values.dtype)  # [C, 2]
        ends = ends[:, None].expand(-1, mask.shape[1], -1)
        segments = torch.cat([values, measured.to(values.dtype), ends], 2)
        return segments * mask.unsqueeze(-1), mask

    def forward(self, segments: Tensor, mask: Tensor) -> Features:
        """segments `[B, C, T, 2 S + 2]`, mask `[B, C, T]`."""
        places = self._places()
        return Features(segments.flatten(1, 2), mask.flatten(1), grid=mask.shape[1:], **places)

    def _places(self) -> dict[str, Any]:
        if self.rate is None:
            return {}
        seconds = self.segment / self.rate
        return {"spacing": (1.0, seconds), "origin": (0.5, seconds / 2)}
