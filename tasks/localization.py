"""Localization: boxes of what is asked for, and how sure each is.

Carion et al., "End-to-End Object Detection with Transformers" (DETR), 2020, equations 1 and 2, for
boxes of two or three axes: each true box is matched to one query at least cost; that one learns
its place (L1 in shares of the grid, GIoU in the world) and that it is there, the others that
they are not.

Legend: `B` rows, `Q` queries, `N` boxes of a row, `n` axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..modalities.base import Features
from ._boxes import giou, shares, unit_to_world, world
from ._matching import matched
from ._places import to_world
from .base import Batch, Encode, Loss, Metrics, Row, Task
from .box_metrics import BoxMetrics

WHO = "localization"


class Localization(Task):
    """input: the stream. target: the column of a box, of a list of boxes, or of None: low corner,
    then high corner, in the source's world: mm for volumes (RAS), for pictures pixels of what the
    encoder sees, rows first. axes: of a box. l1, giou: weights of the two errors of a box, beside
    1 of whether it is there. absent: weight of a query that has no box, against one that has.
    threshold: predictions below this score are left out, but for the best one.
    """

    head_names: ClassVar[tuple[str, ...]] = ("head",)
    head_types: ClassVar[dict[str, str]] = {"head": "detr"}

    def __init__(
        self,
        *,
        input: str,
        target: str = "box",
        axes: Literal[2, 3] = 3,
        l1: float = 5.0,
        giou: float = 2.0,
        absent: float = 0.1,
        threshold: float = 0.05,
    ) -> None:
        super().__init__()
        for name, value in (("l1", l1), ("giou", giou)):
            if value < 0:
                raise ValueError(f"{name}: found {value}, expected at least 0")
        if not 0 < absent <= 1:
            raise ValueError(f"absent: found {absent}, expected more than 0 and at most 1")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold: found {threshold}, expected at least 0 and less than 1")
        self.streams = (input,)
        self.target, self.axes = target, axes
        self.l1, self.giou, self.absent, self.threshold = l1, giou, absent, threshold

    def head_widths(self) -> dict[str, tuple[str, int]]:
        return {"head": (self.streams[0], 1 + 2 * self.axes)}

    def columns(self) -> tuple[str, ...]:
        return (self.target,)

    def targets(self, row: Row) -> dict[str, Any]:
        """`boxes`: `[2 n]` numbers each; absent where the row lacks the column."""
        if self.target not in row:
            return {}
        cell = row[self.target]
        cell = cell() if callable(cell) else cell
        several = [] if cell is None else list(cell)
        if several and not isinstance(several[0], (list, tuple)) and not _has_axis(several[0]):
            several = [several]
        return {"boxes": [self._box(box) for box in several]}

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        """Summed over rows: of a row, the mean over its queries (weighted) and over its boxes.
        `overlapping`: the share of a row's boxes that their query comes near (GIoU above 0)."""
        wanted = self._wanted(batch)
        logits, found, unit = self._found(encode)
        placed = world(found, unit)  # [B, Q, 2 n]
        total = logits.new_zeros(())
        hits = logits.new_zeros(())
        for row, boxes in enumerate(wanted):
            boxes = boxes.to(logits.device)
            known = shares(boxes[None], unit[row : row + 1])[0]
            each = (found[row][:, None] - known[None]).abs().sum(-1)  # [Q, N]
            overlap = giou(placed[row][:, None], boxes[None])
            cost = self.l1 * each - self.giou * overlap - logits[row].sigmoid()[:, None]
            queries, places = matched(cost)
            total = total + self._there(logits[row], queries)
            if len(boxes):
                near, over = each[queries, places], overlap[queries, places]
                total = total + (self.l1 * near + self.giou * (1 - over)).mean()
                hits = hits + (over.detach() > 0).float().mean()
        # A batch without any box must give the place's weights a gradient all the same.
        return Loss(total + 0 * found.sum(), len(batch), {"overlapping": hits})

    def predict(
        self, batch: Batch, encode: Encode, backbone: Backbone | None, **options: Any
    ) -> list[dict[str, Any]]:
        """`boxes` in the source's world, the surest first, and their `scores`."""
        logits, found, unit = self._found(encode)
        boxes = world(found, unit).cpu().tolist()
        return [
            self._answer(scores, places)
            for scores, places in zip(logits.sigmoid().cpu().tolist(), boxes, strict=True)
        ]

    def metrics(self) -> Metrics:
        return BoxMetrics()

    def example(self) -> list[dict[str, Any]]:
        one = [*[-8.0] * self.axes, *[4.0] * self.axes]
        return [{self.target: one}, {self.target: None}]

    def _answer(self, scores: list[float], boxes: list[list[float]]) -> dict[str, Any]:
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        kept = [i for i in order if scores[i] >= self.threshold] or order[:1]
        return {"boxes": [boxes[i] for i in kept], "scores": [scores[i] for i in kept]}

    def _there(self, logits: Tensor, queries: Tensor) -> Tensor:
        """Binary cross entropy of a row's queries `[Q]`, the empty ones weighted less."""
        answer = torch.zeros_like(logits).index_fill(0, queries, 1.0)
        weights = answer + self.absent * (1 - answer)
        each = F.binary_cross_entropy_with_logits(logits, answer, reduction="none")
        return (weights * each).sum() / weights.sum()

    def _found(self, encode: Encode) -> tuple[Tensor, Tensor, Tensor]:
        """`[B, Q]` logits, `[B, Q, 2 n]` boxes in shares of the grid, `[B, n + 1, n + 1]`."""
        features = encode(self.streams[0])
        matrix = to_world(features, WHO)
        grid = features.grid or ()
        if len(grid) != self.axes:
            raise ValueError(
                f"axes: {WHO} finds boxes of {self.axes} axes, the features of "
                f"{self.streams[0]} have the grid {grid}; say axes: {len(grid)}"
            )
        made: Features = self.heads["head"](features)
        width = 1 + 2 * self.axes
        if made.tokens.shape[-1] != width or made.pooled is not None:
            raise ValueError(
                f"{WHO}: its head gives one vector, or {made.tokens.shape[-1]} numbers a query; "
                f"expected queries of {width}, as `head: detr` gives them"
            )
        tokens = made.tokens.float()
        return tokens[..., 0], tokens[..., 1:].sigmoid(), unit_to_world(matrix, grid)

    def _wanted(self, batch: Batch) -> list[Tensor]:
        """A row's boxes `[N, 2 n]`, on the CPU."""
        for key, target in zip(batch.keys, batch.targets, strict=True):
            if "boxes" not in target:
                raise ValueError(f"row {key!r}: has no boxes; add the column {self.target!r}")
        return [
            torch.tensor(target["boxes"], dtype=torch.float32).reshape(-1, 2 * self.axes)
            for target in batch.targets
        ]

    def _box(self, box: Sequence[Any]) -> list[float]:
        where = f"the column {self.target!r}"
        try:
            found = [float(value) for value in box]
        except (TypeError, ValueError):
            raise ValueError(f"{where} holds {box!r}, expected a box of numbers") from None
        if len(found) != 2 * self.axes or not all(map(math.isfinite, found)):
            raise ValueError(
                f"{where} holds {found}, expected {2 * self.axes} finite numbers: the low corner, "
                "then the high one"
            )
        if any(a > b for a, b in zip(found[: self.axes], found[self.axes :], strict=True)):
            raise ValueError(f"{where}: the low corner of {found} lies above the high one")
        return found


def _has_axis(value: Any) -> bool:
    return getattr(value, "ndim", 0) > 0
