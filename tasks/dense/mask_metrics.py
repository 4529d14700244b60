"""Agreement of masks by row: overlap and distance of surfaces, as MONAI defines them.

Legend: `X Y Z` voxels of the true mask's own grid, two axes or three.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from monai.metrics import compute_dice, compute_hausdorff_distance
from torch import Tensor

PERCENTILE = 95


def agreement(
    prediction: Tensor, target: Tensor, spacing: Sequence[float]
) -> dict[str, float | None]:
    """Return `dice` and `hd95` (in the spacing's units) of two masks, bool `[X, Y, Z]`. `dice` is
    None without a true mask, `hd95` if either is empty. `found`, `wanted`: their voxels."""
    a, b = prediction[None, None].float(), target[None, None].float()
    has_target, has_prediction = bool(target.any()), bool(prediction.any())
    distance = None
    if has_target and has_prediction:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # MONAI's, about its own argument
            hd95 = compute_hausdorff_distance(a, b, percentile=PERCENTILE, spacing=list(spacing))
        distance = float(hd95)
    return {
        "dice": float(compute_dice(a, b)) if has_target else None,
        "hd95": distance,
        "found": float(prediction.sum()),
        "wanted": float(target.sum()),
    }


class MaskMetrics:
    """`dice`: mean over rows with a mask. `hd95`: over those of them with a prediction; `missed`:
    the fraction without one. `false_alarms`: of rows without a mask, the fraction with a
    prediction. NaN if there is no such row."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add predictions with their scores. Raise ValueError if one was made without a true
        mask."""
        if any("scores" not in prediction for prediction in predictions):
            raise ValueError(
                "mask metrics: a row was predicted without its mask; evaluate on data that has them"
            )
        self.rows += [prediction["scores"] for prediction in predictions]

    def compute(self) -> dict[str, float]:
        if not self.rows:
            raise ValueError("mask metrics: no row was accumulated; is the split empty?")
        with_mask = [row for row in self.rows if row["wanted"]]
        without_mask = [row for row in self.rows if not row["wanted"]]
        return {
            "dice": _mean([row["dice"] for row in with_mask]),
            "hd95": _mean([row["hd95"] for row in with_mask if row["hd95"] is not None]),
            "missed": _mean([float(not row["found"]) for row in with_mask]),
            "false_alarms": _mean([float(bool(row["found"])) for row in without_mask]),
        }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
