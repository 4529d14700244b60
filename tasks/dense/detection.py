"""Detection: boxes with their scores.

Carion et al., "End-to-End Object Detection with Transformers" (DETR), 2020, equations 1 and 2, for
boxes of two or three axes: each true box is matched to one query at least cost, which learns the
box (L1 in fractions of the grid, GIoU in the world) and objectness 1; the other queries learn
objectness 0.

Legend: `B` rows, `Q` queries, `N` boxes of a row, `n` axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...modalities.base import Features, Loss, NonNegativeFloat, Probability
from ..base import Context, Metrics, Row, Task
from ..batch import Batch, Example, Tools
from ..common import grid_to_world
from ..uses import HeadUse, StreamUse
from .box_metrics import BoxMetrics
from .boxes import cxcywh_to_world, giou, unit_to_world, world_to_cxcywh
from .matching import hungarian_match

WHO = "localization"


class Detection(Task):
    """input: the stream. target: the column of a box, a list of boxes, or None: low corner, then
    high corner, in the source's world: mm for volumes (RAS), for pictures pixels of the file, rows
    first (the resizing and the crop of the encoder are accounted for). axes: of a box. l1, giou:
    weights of the box losses, beside 1 for objectness. no_object_weight: weight of a query without
    a box, relative to one with a box. threshold: predictions with a lower score are dropped, except
    the best one."""

    ability: ClassVar[str] = "localize"

    head_types: ClassVar[Mapping[str, str]] = {"head": "detr"}

    def __init__(
        self,
        *,
        input: str,
        target: str = "box",
        axes: Literal[2, 3] = 3,
        l1: NonNegativeFloat = 5.0,
        giou: NonNegativeFloat = 2.0,
        no_object_weight: NonNegativeFloat = 0.1,
        threshold: Probability = 0.05,
    ) -> None:
        super().__init__()
        for name, value in (("l1", l1), ("giou", giou)):
            if value < 0:
                raise ValueError(f"{name}: found {value}, expected at least 0")
        if not 0 < no_object_weight <= 1:
            raise ValueError(
                f"no_object_weight: found {no_object_weight}, expected more than 0 and at most 1"
            )
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold: found {threshold}, expected at least 0 and less than 1")
        self.input, self.streams = input, {input: StreamUse()}
        self.target, self.axes = target, axes
        self.l1, self.giou, self.no_object_weight, self.threshold = (
            l1,
            giou,
            no_object_weight,
            threshold,
        )

    @property
    def head_uses(self) -> Mapping[str, HeadUse]:
        return {"head": HeadUse(stream=self.input, out_dim=1 + 2 * self.axes)}

    def columns(self) -> tuple[str, ...]:
        return (self.target,)

    def nullable(self) -> tuple[str, ...]:
        """Null is no box."""
        return (self.target,)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Label and reference: `boxes`, `2 n` numbers each. Neither if the row lacks the column."""
        if self.target not in row:
            return Example()
        cell = row[self.target]
        cell = cell() if callable(cell) else cell
        cells = [] if cell is None else list(cell)
        if cells and not isinstance(cells[0], (list, tuple)) and not _has_axis(cells[0]):
            cells = [cells]
        boxes = [self._box(box) for box in cells]
        label = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 2 * self.axes)
        return Example({"boxes": label}, {"boxes": boxes})

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return a sum over rows of the mean over queries (weighted) plus the mean over boxes.
        Parts: `overlapping`, the fraction of a row's boxes whose query overlaps them (GIoU above
        0)."""
        padded = batch.label("boxes", f"has no boxes; add the column {self.target!r}")
        counts = batch.label_masks["boxes"].sum(1).tolist()
        logits, shares, unit = self._queries(ctx)
        predicted = cxcywh_to_world(shares, unit)  # [B, Q, 2 n]
        total = logits.new_zeros(())
        hits = logits.new_zeros(())
        for row, count in enumerate(counts):
            boxes = padded[row, :count]
            target = world_to_cxcywh(boxes[None], unit[row : row + 1])[0]
            distance = (shares[row][:, None] - target[None]).abs().sum(-1)  # [Q, N]
            overlap = giou(predicted[row][:, None], boxes[None])
            cost = self.l1 * distance - self.giou * overlap - logits[row].sigmoid()[:, None]
            queries, matches = hungarian_match(cost)
            total = total + self._objectness(logits[row], queries)
            if len(boxes):
                near, over = distance[queries, matches], overlap[queries, matches]
                total = total + (self.l1 * near + self.giou * (1 - over)).mean()
                hits = hits + (over.detach() > 0).float().mean()
        # Without any box the box weights still need a gradient, in every process.
        return Loss(total + 0 * shares.sum(), len(batch), {"overlapping": hits})

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `boxes` in the source's world, by descending score, and their `scores`."""
        logits, shares, unit = self._queries(ctx)
        boxes = cxcywh_to_world(shares, unit).cpu().tolist()
        return [
            self._prediction(scores, box_rows)
            for scores, box_rows in zip(logits.sigmoid().cpu().tolist(), boxes, strict=True)
        ]

    def metrics(self) -> Metrics:
        return BoxMetrics()

    def example_rows(self) -> list[dict[str, Any]]:
        box = [*[-8.0] * self.axes, *[4.0] * self.axes]
        return [{self.target: box}, {self.target: None}]

    def _prediction(self, scores: list[float], boxes: list[list[float]]) -> dict[str, Any]:
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        selected = [i for i in order if scores[i] >= self.threshold] or order[:1]
        return {"boxes": [boxes[i] for i in selected], "scores": [scores[i] for i in selected]}

    def _objectness(self, logits: Tensor, queries: Tensor) -> Tensor:
        """Return the binary cross-entropy of a row's queries `[Q]`, unmatched ones weighted
        less."""
        target = torch.zeros_like(logits).index_fill(0, queries, 1.0)
        weights = target + self.no_object_weight * (1 - target)
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (weights * losses).sum() / weights.sum()

    def _queries(self, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits `[B, Q]`, boxes `[B, Q, 2 n]` as fractions of the grid, and `[B, n + 1, n +
        1]`, from the unit cube to the world."""
        features = ctx.encode(self.input)
        matrix = grid_to_world(features, WHO)
        grid = features.grid or ()
        if len(grid) != self.axes:
            raise ValueError(
                f"axes: {WHO} expects boxes of {self.axes} axes, the features of {self.input} "
                f"have the grid {grid}; use axes: {len(grid)}"
            )
        queries: Features = self.heads["head"](features)
        width = 1 + 2 * self.axes
        if queries.tokens.shape[-1] != width or queries.pooled is not None:
            raise ValueError(
                f"{WHO}: its head returns one vector, or {queries.tokens.shape[-1]} numbers a "
                f"query; expected queries of {width}, as `head: detr` returns them"
            )
        tokens = queries.tokens.float()
        unit = unit_to_world(matrix, features.extents())
        return tokens[..., 0], tokens[..., 1:].sigmoid(), unit

    def _box(self, box: Sequence[Any]) -> list[float]:
        where = f"the column {self.target!r}"
        try:
            numbers = [float(value) for value in box]
        except (TypeError, ValueError):
            raise ValueError(f"{where} holds {box!r}, expected a box of numbers") from None
        if len(numbers) != 2 * self.axes or not all(map(math.isfinite, numbers)):
            raise ValueError(
                f"{where} holds {numbers}, expected {2 * self.axes} finite numbers: the low "
                "corner, then the high one"
            )
        if any(a > b for a, b in zip(numbers[: self.axes], numbers[self.axes :], strict=True)):
            raise ValueError(f"{where}: the low corner of {numbers} lies above the high one")
        return numbers


def _has_axis(value: Any) -> bool:
    return getattr(value, "ndim", 0) > 0
