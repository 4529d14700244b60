"""Classification: one label of a stream, or several.

One label: cross entropy over the classes. Several (`multi_label`): a binary cross entropy a
class, averaged over the classes. Both summed over rows.

Legend: `B` rows, `K` classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import Backbone
from ._heads import head_output
from .base import Batch, Encode, Loss, Metrics, Row, Task
from .class_metrics import LabelMetrics, MultiLabelMetrics
from .labels import Labels


class Classification(Task):
    """input: the stream. target: the column of labels. smoothing: how much of each target is
    spread over the classes. threshold: the score from which one of several labels is given.
    scores: give every class's score, which AUROC and average precision are made of.
    """

    head_names: ClassVar[tuple[str, ...]] = ("head",)

    def __init__(
        self,
        *,
        input: str,
        labels: Labels,
        target: str = "label",
        multi_label: bool = False,
        smoothing: float = 0.0,
        threshold: float = 0.5,
        scores: bool = True,
    ) -> None:
        super().__init__()
        for name, share in (("smoothing", smoothing), ("threshold", threshold)):
            if not 0 <= share < 1:
                raise ValueError(f"{name}: found {share}, expected at least 0 and less than 1")
        labels.bind(target)
        self.streams = (input,)
        self.labels, self.target, self.multi_label = labels, target, multi_label
        self.smoothing, self.threshold, self.scores = smoothing, threshold, scores

    def head_widths(self) -> dict[str, tuple[str, int]]:
        return {"head": (self.streams[0], len(self.labels))}

    def columns(self) -> tuple[str, ...]:
        return (self.target,)

    def targets(self, row: Row) -> dict[str, Any]:
        """`label`: the label, or the list of labels; absent where the row lacks the column."""
        if self.target not in row:
            return {}
        found = self.labels.read(row)
        for label in found:
            self.labels.index(label)
        if self.multi_label:
            return {"label": found}
        if len(found) != 1 or isinstance(row[self.target], (list, tuple)):
            raise ValueError(
                f"the column {self.target!r} holds the list {found}, expected one label; "
                "say multi_label: true"
            )
        return {"label": found[0]}

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        """`correct`: rows whose label comes first; with `multi_label` the share of classes that
        are right, summed over rows."""
        wanted = self._wanted(batch)
        logits = self._logits(encode)  # [B, K]
        wanted = wanted.to(logits.device)
        if self.multi_label:
            smooth = wanted * (1 - self.smoothing) + self.smoothing / 2
            each = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
            right = (logits.detach().sigmoid() >= self.threshold) == wanted.bool()
            return Loss(each.mean(1).sum(), len(batch), {"correct": right.float().mean(1).sum()})
        total = F.cross_entropy(logits, wanted, reduction="sum", label_smoothing=self.smoothing)
        return Loss(total, len(batch), {"correct": (logits.detach().argmax(1) == wanted).sum()})

    def predict(
        self, batch: Batch, encode: Encode, backbone: Backbone | None, **options: Any
    ) -> list[dict[str, Any]]:
        """`label` (a list with `multi_label`), `score` of the one label, and `scores`: the share
        of each class, by its name."""
        logits = self._logits(encode)
        shares = logits.sigmoid() if self.multi_label else logits.softmax(1)
        return [self._answer(row) for row in shares.tolist()]

    def metrics(self) -> Metrics:
        kind = MultiLabelMetrics if self.multi_label else LabelMetrics
        return kind(self.labels.classes)

    def example(self) -> list[dict[str, Any]]:
        known = self.labels.state()["classes"][:2] or ["cat", "dog"]
        return [{self.target: [label] if self.multi_label else label} for label in known]

    def _answer(self, shares: list[float]) -> dict[str, Any]:
        classes = self.labels.classes
        found: dict[str, Any]
        if self.multi_label:
            kept = [c for c, share in zip(classes, shares, strict=True) if share >= self.threshold]
            found = {"label": kept}
        else:
            best = max(range(len(classes)), key=shares.__getitem__)
            found = {"label": classes[best], "score": shares[best]}
        if self.scores:
            found["scores"] = {str(c): share for c, share in zip(classes, shares, strict=True)}
        return found

    def _logits(self, encode: Encode) -> Tensor:
        return head_output(self, "head", encode(self.streams[0]))

    def _wanted(self, batch: Batch) -> Tensor:
        """`[B]` places of the labels, or `[B, K]` ones and zeros; on the CPU."""
        for key, target in zip(batch.keys, batch.targets, strict=True):
            if "label" not in target:
                raise ValueError(f"row {key!r}: has no label; add the column {self.target!r}")
        known = [target["label"] for target in batch.targets]
        if not self.multi_label:
            return torch.tensor([self.labels.index(label) for label in known])
        wanted = torch.zeros(len(known), len(self.labels))
        for row, labels in zip(wanted, known, strict=True):
            row[[self.labels.index(label) for label in labels]] = 1.0
        return wanted
