"""Accuracy, macro F1, AUROC and mean average precision of predicted labels, by torchmetrics.

A class that the rows evaluated never show (or always) has no AUROC, and one that they never
show no average precision: means are taken over the other classes.

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
    """Accumulates places of labels, and the scores of all classes where predictions have them."""

    def __init__(self, classes: Sequence[Label]) -> None:
        self.classes = list(classes)
        self.places = {label: place for place, label in enumerate(self.classes)}
        self.found: list[Any] = []
        self.wanted: list[Any] = []
        self.scores: list[Tensor] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        """Predictions and targets of the same rows; ValueError where a row has no label."""
        if any("label" not in target for target in targets):
            raise ValueError("class metrics: a row has no label; evaluate on data that has them")
        self.found += [prediction["label"] for prediction in predictions]
        self.wanted += [target["label"] for target in targets]
        names = [str(label) for label in self.classes]
        scored = [p["scores"] for p in predictions if "scores" in p]
        self.scores += [torch.tensor([row[name] for name in names]) for row in scored]

    def _all_scores(self) -> Tensor | None:
        """`[N, K]`, or None where some prediction came without."""
        if not self.found:
            raise ValueError("class metrics: no row was accumulated; is the split empty?")
        return torch.stack(self.scores) if len(self.scores) == len(self.found) else None


class LabelMetrics(_ClassMetrics):
    """One label a row. accuracy; f1: macro, over classes that were wanted or found; auroc: mean
    over classes of one against the rest, where there are scores."""

    def compute(self) -> dict[str, float]:
        scores = self._all_scores()
        found = torch.tensor([self.places[label] for label in self.found])
        wanted = torch.tensor([self.places[label] for label in self.wanted])
        values = {
            "accuracy": float((found == wanted).float().mean()),
            "f1": float(multiclass_f1_score(found, wanted, len(self.classes), average="macro")),
        }
        if scores is not None:
            values["auroc"] = _mean_auroc(scores, _one_hot(wanted, len(self.classes)))
        return values


class MultiLabelMetrics(_ClassMetrics):
    """Several labels a row. exact_match: rows with exactly the labels wanted; f1: macro; auroc
    and map (mean average precision): means over classes, where there are scores."""

    def compute(self) -> dict[str, float]:
        scores = self._all_scores()
        found, wanted = self._table(self.found), self._table(self.wanted)
        values = {
            "exact_match": float((found == wanted).all(1).float().mean()),
            "f1": float(multilabel_f1_score(found, wanted, len(self.classes), average="macro")),
        }
        if scores is not None:
            shown = wanted.any(0).nonzero().flatten().tolist()
            each = [float(binary_average_precision(scores[:, k], wanted[:, k])) for k in shown]
            values["auroc"] = _mean_auroc(scores, wanted)
            values["map"] = sum(each) / len(each) if each else float("nan")
        return values

    def _table(self, rows: Sequence[Sequence[Label]]) -> Tensor:
        """`[N, K]` ones and zeros."""
        table = torch.zeros(len(rows), len(self.classes), dtype=torch.long)
        for line, labels in zip(table, rows, strict=True):
            line[[self.places[label] for label in labels]] = 1
        return table


def _one_hot(places: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(places, classes)


def _mean_auroc(scores: Tensor, wanted: Tensor) -> float:
    """Mean over the classes that some rows have and some have not; nan where there is none."""
    usable = (wanted.any(0) & ~wanted.all(0)).nonzero().flatten().tolist()
    each = [float(binary_auroc(scores[:, k], wanted[:, k])) for k in usable]
    return sum(each) / len(each) if each else float("nan")
