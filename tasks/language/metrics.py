"""Metrics of language modelling: loss, perplexity, accuracy of the last word."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


class LanguageMetrics:
    """Accumulates scores of rows, by objective.

    loss: mean over tokens, in nats; over several objectives the mean by their weights. perplexity:
    its exponential. last_word_accuracy: fraction of texts whose last word is what greedy decoding
    writes at its place (LAMBADA), among those with another word before it in the target.
    With several objectives each has a loss and a perplexity of its name as well. Terms have a mean
    over what they predict, other measures one over rows.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)
        self.nll: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.words, self.right = 0, 0
        self.sums: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        for prediction in predictions:
            for name, score in prediction["scores"].items():
                self.nll[name] += score["nll"]
                self.tokens[name] += score["tokens"]
                self.words += "last_word" in score
                self.right += score.get("last_word", False)
            for name, score in prediction.get("terms", {}).items():
                self.sums[f"{name}_loss"] += score["nll"]
                self.counts[f"{name}_loss"] += score["tokens"]
            for name, value in prediction.get("measures", {}).items():
                self.sums[name] += value
                self.counts[name] += 1

    def compute(self) -> dict[str, float]:
        if not self.tokens:
            raise ValueError("language metrics: no text was accumulated; is the split empty?")
        losses = {name: self.nll[name] / self.tokens[name] for name in self.weights}
        total = sum(self.weights.values())
        loss = sum(self.weights[name] * value for name, value in losses.items()) / total
        result = {"loss": loss, "perplexity": _exp(loss)}
        if len(losses) > 1:
            for name, value in losses.items():
                result |= {f"{name}_loss": value, f"{name}_perplexity": _exp(value)}
        if self.words:
            result["last_word_accuracy"] = self.right / self.words
        result |= {name: self.sums[name] / count for name, count in self.counts.items() if count}
        return result


def _exp(loss: float) -> float:
    return math.exp(min(loss, 700.0))  # the largest power of e that a float holds
