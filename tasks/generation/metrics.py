"""Metrics of samples: against their references, and as a distribution.

Legend: `N` samples, `D` width of their vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class SampleMetrics:
    """`mse`: the mean over the rows that have a reference; NaN without any."""

    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, predictions: Sequence[Any], references: Sequence[Mapping[str, Any]]) -> None:
        self.errors += [row["scores"]["mse"] for row in predictions if "scores" in row]

    def compute(self) -> dict[str, float]:
        return {"mse": float(np.mean(self.errors)) if self.errors else float("nan")}


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Compute `|m - n|^2 + tr(A + B - 2 (A B)^(1/2))` of the means and covariances of two sets of
    vectors `[N, D]` (Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017)."""
    if min(len(first), len(second)) < 2:
        return float("nan")
    first, second = first.double(), second.double()
    distance = (first.mean(0) - second.mean(0)).square().sum()
    a, b = first.T.cov(), second.T.cov()
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    return float((distance + a.trace() + b.trace() - 2 * cross).clamp(min=0))


def attribute_accuracy(
    name: str, samples: np.ndarray, real: np.ndarray, labels: Sequence[str]
) -> dict[str, float]:
    """Return the accuracy of a linear classifier of an attribute on samples `[N, D]`; it is fitted
    on the vectors of the references, whose labels the samples should have. `_real` is its accuracy
    on references that it was not fitted on (5 folds), the ceiling."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    expected = np.array(labels)
    _, counts = np.unique(expected, return_counts=True)
    if len(counts) < 2 or counts.min() < 2:
        return {}
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = min(5, int(counts.min()))
    held_out = cross_val_predict(classifier, real, expected, cv=folds)
    predicted = classifier.fit(real, expected).predict(samples)
    return {
        f"{name}_accuracy": float((predicted == expected).mean()),
        f"{name}_accuracy_real": float((held_out == expected).mean()),
    }


class MixedMetrics:
    """`text_match`: the fraction of rows whose text is right; `count_match`: whose number of
    vectors is; `mae`: of the numbers of those rows, NaN without any."""

    def __init__(self) -> None:
        self.texts: list[bool] = []
        self.counts: list[bool] = []
        self.errors: list[float] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        for row, reference in zip(predictions, references, strict=True):
            self.texts.append(row["text"].strip() == str(reference["text"]).strip())
            self.counts.append(len(row["values"]) == len(reference["values"]))
            if self.counts[-1] and row["values"]:
                difference = np.array(row["values"]) - np.array(reference["values"])
                self.errors.append(float(np.abs(difference).mean()))

    def compute(self) -> dict[str, float]:
        return {
            "text_match": float(np.mean(self.texts)),
            "count_match": float(np.mean(self.counts)),
            "mae": float(np.mean(self.errors)) if self.errors else float("nan"),
        }


class ImageTokenMetrics:
    """`recall@1` over the rows with a picture, `decision_accuracy` over those with a decision; NaN
    without any."""

    def __init__(self) -> None:
        self.vectors: list[tuple[list[float], list[float]]] = []
        self.decisions: list[bool] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        for row, reference in zip(predictions, references, strict=True):
            if "image_vector" in row:
                self.vectors.append((row["vector"], row["image_vector"]))
            if "decision" in reference:
                self.decisions.append(row["decision"] == reference["decision"])

    def compute(self) -> dict[str, float]:
        recall = float("nan")
        if self.vectors:
            texts, images = (torch.tensor(each) for each in zip(*self.vectors, strict=True))
            nearest = (texts @ images.T).argmax(1)
            recall = float((nearest == torch.arange(len(texts))).float().mean())
        decided = float(np.mean(self.decisions)) if self.decisions else float("nan")
        return {"recall@1": recall, "decision_accuracy": decided}
