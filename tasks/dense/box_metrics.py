"""Metrics of predicted boxes: overlap, hits and the distance of centres."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from .boxes import giou, iou
from .matching import hungarian_match


class BoxMetrics:
    """Metrics over all true boxes. Each row's predictions with the highest scores, as many as it
    has boxes, are matched to them by overlap: `iou`, `giou`, `box_hit` (the predicted centre lies
    inside), `centre_error` (mm, or pixels), `missed` (no prediction was left).

    `auroc`: of a row's highest score for whether it has a box; NaN if all rows have one, or none.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {
            name: [] for name in ("iou", "giou", "box_hit", "centre_error", "missed")
        }
        self.scores: list[float] = []
        self.has_box: list[int] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add predictions and targets of the same rows. Raise ValueError if a target is missing."""
        for prediction, target in zip(predictions, targets, strict=True):
            if "boxes" not in target:
                raise ValueError("box metrics: a row has no boxes; evaluate on data that has them")
            self.scores.append(max(prediction["scores"], default=0.0))
            self.has_box.append(int(bool(target["boxes"])))
            if target["boxes"]:
                self._add(prediction, torch.tensor(target["boxes"], dtype=torch.float64))

    def compute(self) -> dict[str, float]:
        if not self.has_box:
            raise ValueError("box metrics: no row was accumulated; is the split empty?")
        means = {
            name: sum(values) / len(values) if values else math.nan
            for name, values in self.values.items()
        }
        both = len(set(self.has_box)) == 2
        scores, has_box = torch.tensor(self.scores), torch.tensor(self.has_box)
        return means | {"auroc": float(binary_auroc(scores, has_box)) if both else math.nan}

    def _add(self, prediction: Mapping[str, Any], targets: Tensor) -> None:
        order = sorted(range(len(prediction["scores"])), key=lambda i: -prediction["scores"][i])
        best = [prediction["boxes"][i] for i in order[: len(targets)]]
        boxes = torch.tensor(best, dtype=torch.float64).reshape(len(best), targets.shape[-1])
        rows, columns = hungarian_match(-giou(boxes[:, None], targets[None]))
        a, b = boxes[rows], targets[columns]
        (low, high), middle = b.chunk(2, -1), sum(a.chunk(2, -1)) / 2
        inside = ((middle >= low) & (middle <= high)).all(-1)
        distance = (middle - (low + high) / 2).norm(dim=-1)
        missed = len(targets) - len(a)
        self.values["iou"] += [*iou(a, b).tolist(), *[0.0] * missed]
        self.values["giou"] += [*giou(a, b).tolist(), *[-1.0] * missed]
        self.values["box_hit"] += [*inside.double().tolist(), *[0.0] * missed]
        self.values["centre_error"] += distance.tolist()
        self.values["missed"] += [*[0.0] * len(a), *[1.0] * missed]
