"""Segments of a series as they are: a token holds the values of one channel, and nothing trains.

For tasks that embed segments themselves, such as `forecast`.

Legend: `B` batch, `C` channels, `T` segments, `S` samples of a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...base import Features, PositiveInt, Sample
from ..preprocessing import Preprocessing
from .base import SeriesEncoder, padded, stacked


class Segments(SeriesEncoder):
    """Tokens `[B, C * T, S]`, the segments of each channel in the order of time; grid `(C, T)`.

    segment: samples of a segment. The last segment ends with the series; what remains at the
    beginning is cut off. A segment without a measured value is masked.
    """

    supports = frozenset({"segments"})

    def __init__(self, *, preprocessing: Preprocessing, segment: PositiveInt) -> None:
        super().__init__(preprocessing, least=segment)
        self.dim = self.segment = segment

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return `values` and `mask` `[B, C, T, S]`, padded on the right, and `shift`, `scale`
        `[B, C]`."""
        cut = [self._cut(sample) for sample in samples]
        values, mask = (padded([sample[key] for sample in cut]) for key in ("values", "mask"))
        return {"values": values, "mask": mask, **stacked(samples, ("shift", "scale"))}

    def _cut(self, sample: Sample) -> Sample:
        first = sample["values"].shape[1] % self.segment
        segments = (-1, self.segment)
        return {k: sample[k][:, first:].unflatten(1, segments) for k in ("values", "mask")}

    def forward(
        self, values: Tensor, mask: Tensor, shift: Tensor | None = None, scale: Tensor | None = None
    ) -> Features:
        """values, mask `[B, C, T, S]`; shift and scale are for the task."""
        return Features(
            values.flatten(1, 2),
            mask.any(3).flatten(1),
            grid=tuple(values.shape[1:3]),
            **self._places(),
        )

    def _places(self) -> dict[str, Any]:
        if self.rate is None:
            return {}
        seconds = self.segment / self.rate
        return {"spacing": (1.0, seconds), "origin": (0.5, seconds / 2)}
