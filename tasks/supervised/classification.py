"""Classification: one label of a stream, or several.

One label: cross-entropy over the classes. Several (`multi_label`): binary cross-entropy for each
class, averaged over the classes. Both are summed over rows.

Legend: `B` rows, `K` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...modalities.base import Fraction, Loss, Probability
from ..base import Context, Metrics, Row, Task, Unit
from ..batch import Batch, Example, Tools
from ..common import head_output
from ..uses import HeadUse, StreamUse
from .label_encoder import LabelEncoder
from .metrics import LabelMetrics, MultiLabelMetrics


class Classification(Task):
    """input: the stream. target: the column of labels. smoothing: label smoothing. threshold: the
    score from which one of several labels is predicted. scores: return every class's score, for
    AUROC and average precision."""

    ability: ClassVar[str] = "classify"

    head_types: ClassVar[Mapping[str, str]] = {"head": "linear"}

    def __init__(
        self,
        *,
        input: str,
        labels: LabelEncoder,
        target: str = "label",
        multi_label: bool = False,
        smoothing: Fraction = 0.0,
        threshold: Probability = 0.5,
        scores: bool = True,
    ) -> None:
        super().__init__()
        for name, share in (("smoothing", smoothing), ("threshold", threshold)):
            if not 0 <= share < 1:
                raise ValueError(f"{name}: found {share}, expected at least 0 and less than 1")
        labels.set_columns(target)
        self.input, self.streams = input, {input: StreamUse()}
        self.labels, self.target, self.multi_label = labels, target, multi_label
        self.smoothing, self.threshold, self.scores = smoothing, threshold, scores

    @property
    def head_uses(self) -> Mapping[str, HeadUse]:
        return {"head": HeadUse(stream=self.input, out_dim=len(self.labels))}

    def columns(self) -> tuple[str, ...]:
        return (self.target,)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Label: `class`, an index, or with `multi_label` `[K]` ones and zeros. Reference:
        `label`, the label or the list of labels. Neither if the row lacks the column."""
        if self.target not in row:
            return Example()
        labels = self.labels.read(row)
        indices = [self.labels.index(label) for label in labels]
        if self.multi_label:
            ones = torch.zeros(len(self.labels))
            ones[indices] = 1.0
            return Example({"class": ones}, {"label": labels})
        if len(labels) != 1 or isinstance(row[self.target], (list, tuple)):
            raise ValueError(
                f"the column {self.target!r} holds the list {labels}, expected one label; "
                "set multi_label: true"
            )
        return Example({"class": torch.tensor(indices[0])}, {"label": labels[0]})

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return a sum over rows. Parts: `correct`, rows whose label ranks first; with
        `multi_label` the fraction of classes that are right, summed over rows."""
        target = batch.label("class", f"has no label; add the column {self.target!r}")
        logits = self._logits(ctx)  # [B, K]
        if self.multi_label:
            smooth = target * (1 - self.smoothing) + self.smoothing / 2
            losses = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
            right = (logits.detach().sigmoid() >= self.threshold) == target.bool()
            return Loss(losses.mean(1).sum(), len(batch), {"correct": right.float().mean(1).sum()})
        total = F.cross_entropy(logits, target, reduction="sum", label_smoothing=self.smoothing)
        return Loss(total, len(batch), {"correct": (logits.detach().argmax(1) == target).sum()})

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `label` (a list with `multi_label`), `score` of the one label, and `scores`, the
        probability of each class by its name."""
        logits = self._logits(ctx)
        shares = logits.sigmoid() if self.multi_label else logits.softmax(1)
        return [self._prediction(row) for row in shares.tolist()]

    def units(self, batch: Batch, ctx: Context) -> list[Unit]:
        """Return the predicted label, or labels."""
        logits = self._logits(ctx)[0]
        chosen = [int(logits.argmax())]
        if self.multi_label:
            chosen = (logits.sigmoid() >= self.threshold).nonzero().flatten().tolist() or chosen
        return [Unit(str(self.labels.classes[k]), k) for k in chosen]

    def unit_scores(self, batch: Batch, ctx: Context, units: Sequence[Unit]) -> Tensor:
        """Return `[B, U]`, the log-probability of each label."""
        logits = self._logits(ctx).float()
        log_probs = F.logsigmoid(logits) if self.multi_label else logits.log_softmax(1)
        return log_probs[:, [unit.target for unit in units]]

    def metrics(self) -> Metrics:
        kind = MultiLabelMetrics if self.multi_label else LabelMetrics
        return kind(self.labels.classes)

    def example_rows(self) -> list[dict[str, Any]]:
        known = self.labels.state()["classes"][:2] or ["cat", "dog"]
        return [{self.target: [label] if self.multi_label else label} for label in known]

    def _prediction(self, shares: list[float]) -> dict[str, Any]:
        classes = self.labels.classes
        prediction: dict[str, Any]
        if self.multi_label:
            pairs = zip(classes, shares, strict=True)
            prediction = {"label": [c for c, share in pairs if share >= self.threshold]}
        else:
            best = max(range(len(classes)), key=shares.__getitem__)
            prediction = {"label": classes[best], "score": shares[best]}
        if self.scores:
            prediction["scores"] = {str(c): p for c, p in zip(classes, shares, strict=True)}
        return prediction

    def _logits(self, ctx: Context) -> Tensor:
        return head_output(self, "head", ctx.encode(self.input))
