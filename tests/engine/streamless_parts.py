"""Objectives of somebody's own that read no stream: a prior over words, and a language model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.tasks.base import Batch, Loss, Row, Task

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class NegativeLogLikelihood:
    """Mean over rows, in nats."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, predictions: Sequence[Any], targets: Sequence[Mapping[str, Any]]) -> None:
        self.total += sum(prediction["nll"] for prediction in predictions)
        self.count += len(predictions)

    def compute(self) -> dict[str, float]:
        return {"nll": self.total / max(1, self.count)}


class Prior(Task):
    """The frequencies of the words of a column, as logits that train."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(len(WORDS)))

    def columns(self) -> tuple[str, ...]:
        return ("word",)

    def targets(self, row: Row) -> dict[str, Any]:
        return {"word": row["word"]}

    def loss(self, batch: Batch, encode: Any, backbone: Any) -> Loss:
        return Loss(self._nll(batch).sum(), len(batch))

    def predict(self, batch: Batch, encode: Any, backbone: Any, **options: Any) -> list[Any]:
        words = [target["word"] for target in batch.targets]
        return [
            {"text": w, "nll": n} for w, n in zip(words, self._nll(batch).tolist(), strict=True)
        ]

    def metrics(self) -> NegativeLogLikelihood:
        return NegativeLogLikelihood()

    def example(self) -> list[dict[str, Any]]:
        return [{"word": "one"}, {"word": "two"}]

    def _nll(self, batch: Batch) -> Tensor:
        ids = [WORDS.index(target["word"]) for target in batch.targets]
        return -self.logits.log_softmax(-1)[ids]


class LanguageModel(Task):
    """The next token of a column's texts, by the shared decoder."""

    uses_backbone = True

    def columns(self) -> tuple[str, ...]:
        return ("caption",)

    def targets(self, row: Row) -> dict[str, Any]:
        return {"text": row["caption"]}

    def corpus(self, row: Row) -> Iterable[str]:
        return (row["caption"],)

    def loss(self, batch: Batch, encode: Any, backbone: Any) -> Loss:
        each, mask = self._nll(batch, backbone)
        return Loss(each.sum(), mask.sum())

    def predict(self, batch: Batch, encode: Any, backbone: Any, **options: Any) -> list[Any]:
        each, mask = self._nll(batch, backbone)
        means = (each.sum(1) / mask.sum(1)).tolist()
        texts = [target["text"] for target in batch.targets]
        return [{"text": t, "nll": n} for t, n in zip(texts, means, strict=True)]

    def metrics(self) -> NegativeLogLikelihood:
        return NegativeLogLikelihood()

    def example(self) -> list[dict[str, Any]]:
        return [{"caption": "one"}, {"caption": "a three"}]

    def _nll(self, batch: Batch, backbone: Any) -> tuple[Tensor, Tensor]:
        ids, mask = backbone.tokenizer.batch([target["text"] for target in batch.targets])
        device = next(backbone.parameters()).device
        ids, mask = ids.to(device), mask.to(device)
        hidden = backbone(backbone.embed(ids[:, :-1]), mask[:, :-1])
        logits = backbone.logits(hidden).transpose(1, 2)
        each = F.cross_entropy(logits, ids[:, 1:], reduction="none")
        return each * mask[:, 1:], mask[:, 1:]
