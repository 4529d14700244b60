"""Metrics of masked language modelling: loss and accuracy of masked tokens, and of each term."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

MASKED = "masked"
"""The name of the masked tokens among the terms of a prediction."""


class MaskedMetrics:
    """Accumulates the terms of rows.

    loss, perplexity, accuracy: of masked tokens, a mean over tokens. NAME_loss: of a further term,
    a mean over what it predicts. Other numbers of a row: the mean over rows.
    """

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.rows = 0

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        self.rows += len(predictions)
        for prediction in predictions:
            for name, score in prediction["scores"].items():
                key = "loss" if name == MASKED else f"{name}_loss"
                self.sums[key] += score["nll"]
                self.counts[key] += score["tokens"]
                if name == MASKED:
                    self.sums["accuracy"] += score["correct"]
                    self.counts["accuracy"] += score["tokens"]
            for name, value in prediction.get("measures", {}).items():
                self.sums[name] += value
                self.counts[name] += 1

    def compute(self) -> dict[str, float]:
        if not self.rows:
            raise ValueError("masked-lm metrics: no text was accumulated; is the split empty?")
        means = {name: self.sums[name] / n for name, n in self.counts.items() if n}
        if "loss" in means:
            means["perplexity"] = math.exp(min(means["loss"], 700.0))
        return means
