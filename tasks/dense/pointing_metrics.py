"""The pointing game: does the position of the highest score lie in the mask?

Zhang et al., "Top-down Neural Attention by Excitation Backprop", 2016.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


class PointingMetrics:
    """`hit`: fraction of rows with a mask whose peak is covered; `chance`: that of a random token;
    `off`: mean distance in mm from the peak to the mask's centre; `rows`: number of rows with a
    mask. NaN without any."""

    def __init__(self) -> None:
        self.found: list[Mapping[str, Any]] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        self.found += [row for row in predictions if row.get("hit") is not None]

    def compute(self) -> dict[str, float]:
        count = len(self.found)

        def mean(key: str) -> float:
            return sum(float(row[key]) for row in self.found) / count if count else math.nan

        return {
            "hit": mean("hit"),
            "chance": mean("covered"),
            "off": mean("off"),
            "rows": float(count),
        }
