"""How well masks agree, a row: the overlap and the distance of the surfaces, as MONAI defines them.

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


def agreement(found: Tensor, wanted: Tensor, spacing: Sequence[float]) -> dict[str, float | None]:
    """bool `[X, Y, Z]` both -> `dice`, `hd95` in the spacing's units; None where not defined: the
    first without a true mask, the second where either is empty. `found`, `wanted`: voxels."""
    a, b = found[None, None].float(), wanted[None, None].float()
    there, said = bool(wanted.any()), bool(found.any())
    distance = None
    if there and said:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # MONAI's of an argument of its own
            both = compute_hausdorff_distance(a, b, percentile=PERCENTILE, spacing=list(spacing))
        distance = float(both)
    return {
        "dice": float(compute_dice(a, b)) if there else None,
        "hd95": distance,
        "found": float(found.sum()),
        "wanted": float(wanted.sum()),
    }


class MaskMetrics:
    """`dice`: mean over the rows that have a mask. `hd95`: over those of them in which something
    was found; `missed`: the share in which nothing was. `false_alarms`: of the rows without a
    mask, the share in which something was. NaN where no row is of the kind."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        """Predictions hold their scores; ValueError where one was made without a true mask."""
        if any("scores" not in said for said in predictions):
            raise ValueError(
                "mask metrics: a row was predicted without its mask; evaluate on data that has them"
            )
        self.rows += [said["scores"] for said in predictions]

    def compute(self) -> dict[str, float]:
        if not self.rows:
            raise ValueError("mask metrics: no row was accumulated; is the split empty?")
        there = [row for row in self.rows if row["wanted"]]
        empty = [row for row in self.rows if not row["wanted"]]
        return {
            "dice": _mean([row["dice"] for row in there]),
            "hd95": _mean([row["hd95"] for row in there if row["hd95"] is not None]),
            "missed": _mean([float(not row["found"]) for row in there]),
            "false_alarms": _mean([float(bool(row["found"])) for row in empty]),
        }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
