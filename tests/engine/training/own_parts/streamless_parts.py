"""Objectives of somebody's own that read no stream: a prior over words, and a language model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.modalities.base import Loss
from sensorium.tasks.base import Context, Row, Task
from sensorium.tasks.batch import Batch, Example, Tools
from sensorium.tasks.uses import DecoderUse

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class NegativeLogLikelihood:
    """Mean over rows, in nats."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, predictions: Sequence[Any], references: Sequence[Mapping[str, Any]]) -> None:
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

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        return Example({"word": torch.tensor(WORDS.index(row["word"]))}, {"word": row["word"]})

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        return Loss(self._nll(batch).sum(), len(batch))

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        words = [reference["word"] for reference in batch.references]
        return [
            {"text": w, "nll": n} for w, n in zip(words, self._nll(batch).tolist(), strict=True)
        ]

    def metrics(self) -> NegativeLogLikelihood:
        return NegativeLogLikelihood()

    def example_rows(self) -> list[dict[str, Any]]:
        return [{"word": "one"}, {"word": "two"}]

    def _nll(self, batch: Batch) -> Tensor:
        return -self.logits.log_softmax(-1)[batch.label("word", "has no word")]


class LanguageModel(Task):
    """The next token of a column's texts, by the shared decoder."""

    decoders = {"backbone": DecoderUse()}

    def columns(self) -> tuple[str, ...]:
        return ("caption",)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        ids = tools.tokenizer().encode(row["caption"])
        return Example({"ids": torch.tensor(ids)}, {"text": row["caption"]})

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        return (row["caption"],)

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        losses, mask = self._nll(batch, ctx)
        return Loss(losses.sum(), mask.sum())

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        losses, mask = self._nll(batch, ctx)
        means = (losses.sum(1) / mask.sum(1)).tolist()
        texts = [reference["text"] for reference in batch.references]
        return [{"text": t, "nll": n} for t, n in zip(texts, means, strict=True)]

    def metrics(self) -> NegativeLogLikelihood:
        return NegativeLogLikelihood()

    def example_rows(self) -> list[dict[str, Any]]:
        return [{"caption": "one"}, {"caption": "a three"}]

    def _nll(self, batch: Batch, ctx: Context) -> tuple[Tensor, Tensor]:
        backbone, ids = ctx.decoder(), batch.label("ids", "has no text")
        mask = batch.label_masks["ids"].to(ids.device)
        hidden = backbone(backbone.embed(ids[:, :-1]), mask[:, :-1])
        logits = backbone.logits(hidden).transpose(1, 2)
        each = F.cross_entropy(logits, ids[:, 1:], reduction="none")
        return each * mask[:, 1:], mask[:, 1:]
