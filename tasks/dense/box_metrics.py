"""How well boxes are found: the overlap, the hit, and the distance of their centres."""

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
    """Of every true box, against the row's predictions of the highest scores, as many as it has
    boxes, matched by their overlap: `iou`, `giou`, `box_hit` (the centre found lies inside),
    `centre_error` (mm, or pixels), `missed` (no prediction was left for it).

    `auroc`: does the highest score of a row tell whether it has a box? NaN where all do, or none.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {
            name: [] for name in ("iou", "giou", "box_hit", "centre_error", "missed")
        }
        self.scores: list[float] = []
        self.there: list[int] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        """Predictions and targets of the same rows; ValueError where a target is missing."""
        for said, known in zip(predictions, targets, strict=True):
            if "boxes" not in known:
                raise ValueError("box metrics: a row has no boxes; evaluate on data that has them")
            self.scores.append(max(said["scores"], default=0.0))
            self.there.append(int(bool(known["boxes"])))
            if known["boxes"]:
                self._add(said, torch.tensor(known["boxes"], dtype=torch.float64))

    def compute(self) -> dict[str, float]:
        if not self.there:
            raise ValueError("box metrics: no row was accumulated; is the split empty?")
        found = {
            name: sum(values) / len(values) if values else math.nan
            for name, values in self.values.items()
        }
        both = len(set(self.there)) == 2
        scores, there = torch.tensor(self.scores), torch.tensor(self.there)
        return found | {"auroc": float(binary_auroc(scores, there)) if both else math.nan}

    def _add(self, said: Mapping[str, Any], wanted: Tensor) -> None:
        order = sorted(range(len(said["scores"])), key=lambda i: -said["scores"][i])
        best = [said["boxes"][i] for i in order[: len(wanted)]]
        found = torch.tensor(best, dtype=torch.float64).reshape(len(best), wanted.shape[-1])
        rows, columns = hungarian_match(-giou(found[:, None], wanted[None]))
        a, b = found[rows], wanted[columns]
        (low, high), middle = b.chunk(2, -1), sum(a.chunk(2, -1)) / 2
        inside = ((middle >= low) & (middle <= high)).all(-1)
        apart = (middle - (low + high) / 2).norm(dim=-1)
        lost = len(wanted) - len(a)
        self.values["iou"] += [*iou(a, b).tolist(), *[0.0] * lost]
        self.values["giou"] += [*giou(a, b).tolist(), *[-1.0] * lost]
        self.values["box_hit"] += [*inside.double().tolist(), *[0.0] * lost]
        self.values["centre_error"] += apart.tolist()
        self.values["missed"] += [*[0.0] * len(a), *[1.0] * lost]
