"""Metrics of generated signal tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


class SignalMetrics:
    """Accumulates rows of `signal_generation`.

    loss: mean over target tokens, in nats, the texts' and the ends' among them. perplexity: its
    exponential. token_accuracy: fraction of target tokens that are the most probable ones. valid:
    fraction of the written signals that can be decoded.
    """

    def __init__(self) -> None:
        self.nll, self.tokens, self.correct = 0.0, 0, 0
        self.signals, self.valid = 0, 0

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        for prediction in predictions:
            for signal in prediction["signals"].values():
                self.signals += 1
                self.valid += "problem" not in signal
            if "scores" in prediction:
                self.nll += prediction["scores"]["nll"]
                self.tokens += prediction["scores"]["tokens"]
                self.correct += prediction["scores"]["correct"]

    def compute(self) -> dict[str, float]:
        if not self.signals:
            raise ValueError("signal metrics: no row was accumulated; is the split empty?")
        result = {"valid": self.valid / self.signals}
        if self.tokens:
            loss = self.nll / self.tokens
            result |= {
                "loss": loss,
                "perplexity": math.exp(min(loss, 700.0)),
                "token_accuracy": self.correct / self.tokens,
            }
        return result
