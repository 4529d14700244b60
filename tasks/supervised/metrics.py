"""Accuracy, macro F1, AUROC and mean average precision of predicted labels, by torchmetrics.

A class that all or no evaluated rows have has no AUROC, and one that no row has no average
precision: means are taken over the other classes.

Legend: `N` rows accumulated, `K` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multiclass_f1_score,
    multilabel_f1_score,
)

from .label_encoder import Label


class _ClassMetrics:
    """Accumulates indices of labels, and the scores of all classes if predictions have them."""

    def __init__(self, classes: Sequence[Label]) -> None:
        self.classes = list(classes)
        self.indices = {label: index for index, label in enumerate(self.classes)}
        self.predicted: list[Any] = []
        self.true: list[Any] = []
        self.scores: list[Tensor] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add predictions and targets of the same rows. Raise ValueError if a row has no label."""
        if any("label" not in target for target in targets):
            raise ValueError("class metrics: a row has no label; evaluate on data that has them")
        self.predicted += [prediction["label"] for prediction in predictions]
        self.true += [target["label"] for target in targets]
        names = [str(label) for label in self.classes]
        scored = [p["scores"] for p in predictions if "scores" in p]
        self.scores += [torch.tensor([row[name] for name in names]) for row in scored]

    def _all_scores(self) -> Tensor | None:
        """Return `[N, K]`, or None if a prediction has none."""
        if not self.predicted:
            raise ValueError("class metrics: no row was accumulated; is the split empty?")
        return torch.stack(self.scores) if len(self.scores) == len(self.predicted) else None


class LabelMetrics(_ClassMetrics):
    """One label a row. accuracy; f1: macro, over classes that are predicted or true; auroc: mean
    over classes of one against the rest, if there are scores."""

    def compute(self) -> dict[str, float]:
        scores = self._all_scores()
        predicted = torch.tensor([self.indices[label] for label in self.predicted])
        true = torch.tensor([self.indices[label] for label in self.true])
        values = {
            "accuracy": float((predicted == true).float().mean()),
            "f1": float(multiclass_f1_score(predicted, true, len(self.classes), average="macro")),
        }
        if scores is not None:
            values["auroc"] = _mean_auroc(scores, _one_hot(true, len(self.classes)))
        return values


class MultiLabelMetrics(_ClassMetrics):
    """Several labels a row. exact_match: rows with exactly the true labels; f1: macro; auroc and
    map (mean average precision): means over classes, if there are scores."""

    def compute(self) -> dict[str, float]:
        scores = self._all_scores()
        predicted, true = self._table(self.predicted), self._table(self.true)
        values = {
            "exact_match": float((predicted == true).all(1).float().mean()),
            "f1": float(multilabel_f1_score(predicted, true, len(self.classes), average="macro")),
        }
        if scores is not None:
            present = true.any(0).nonzero().flatten().tolist()
            each = [float(binary_average_precision(scores[:, k], true[:, k])) for k in present]
            values["auroc"] = _mean_auroc(scores, true)
            values["map"] = sum(each) / len(each) if each else float("nan")
        return values

    def _table(self, rows: Sequence[Sequence[Label]]) -> Tensor:
        """Return `[N, K]`, ones and zeros."""
        table = torch.zeros(len(rows), len(self.classes), dtype=torch.long)
        for line, labels in zip(table, rows, strict=True):
            line[[self.indices[label] for label in labels]] = 1
        return table


def _one_hot(indices: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(indices, classes)


def _mean_auroc(scores: Tensor, true: Tensor) -> float:
    """Return the mean over the classes that some rows have and some have not; NaN without any."""
    usable = (true.any(0) & ~true.all(0)).nonzero().flatten().tolist()
    each = [float(binary_auroc(scores[:, k], true[:, k])) for k in usable]
    return sum(each) / len(each) if each else float("nan")
