"""Streams that are embedded in one space, and how they are evaluated.

Legend: `B` rows, `D` width of the space.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..base import Context, Embed, Metrics, Row, Task
from ..batch import Batch, Example, Tools
from ..common import stable_hash
from .candidates import positives
from .metrics import RetrievalMetrics
from .scores import ScoreMetrics
from .similarity import embed, from_json, to_json
from .zero_shot import ZeroShot


class Towers(Task):
    """What contrastive tasks share: labels of rows, predictions and metrics.

    embedded: the streams of the space. similarity: how their embeddings are compared. prefixes:
    widths that have metrics of their own. columns_of: the columns of `group`, `match`, `label` and
    `score`, None where there is none.
    """

    cross_rows = True
    embedded: tuple[str, ...]
    similarity: str
    width: int
    log_scale: nn.Parameter
    gradcache_chunk_size: int | None
    prefixes: Mapping[int, float]
    columns_of: Mapping[str, str | None]
    zero_shot: ZeroShot | None = None
    scored = False
    """The metrics compare similarities with scores, in place of a search."""

    def inputs(self) -> tuple[str, ...]:
        """Return the streams of the space; a prediction does without hard negatives."""
        return self.embedded

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(itertools.combinations(self.embedded, 2))

    def columns(self) -> tuple[str, ...]:
        names = [self.columns_of["group"], self.columns_of["score"] if self.scored else None]
        return tuple(name for name in names if name is not None)

    def training_columns(self) -> tuple[str, ...]:
        score = self.columns_of["score"]
        return () if score is None or self.scored else (score,)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: `group`, the hash of its value, and `scores`. Reference: `group`, `match`,
        `label` and `score`, if the task uses them and the row has them."""
        example = Example()
        for key, column in self.columns_of.items():
            if column is not None and column in row:
                example.reference[key] = _to_json(row[column])
        if "group" in example.reference:
            number = stable_hash(example.reference["group"])
            example.labels["group"] = torch.tensor(number, dtype=torch.long)
        if "score" in example.reference:
            scores = _numbers(example.reference["score"], str(self.columns_of["score"]))
            example.labels["scores"] = torch.tensor(scores, dtype=torch.float32)
        return example

    def _negatives(
        self, batch: Batch, ctx: Context, stream: str, guide: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the vectors of the hard negatives of all rows, and the row of each.

        guide: the stream that embeds them, in place of `stream`.
        """
        rows = torch.arange(len(batch))
        if stream in batch.items:
            rows = rows.repeat_interleave(batch.items[stream])
        return self._vectors(batch, ctx, guide or stream), rows

    def _vectors(self, batch: Batch, ctx: Context, stream: str, point: str = "") -> Tensor:
        """Return `[B, D]`, with maxsim `[B, T, D]`; those of a teacher are compared by cosine."""
        learns = self.streams[stream].role != "teacher"
        if not len(batch):
            device = self.log_scale.device
            shape = (0, 1, self.width) if self.similarity == "maxsim" else (0, self.width)
            return torch.zeros(shape if learns else (0, 0), device=device, requires_grad=learns)
        chunked = learns and not point and self.gradcache_chunk_size is not None
        options: dict[str, Any] = {"chunk": self.gradcache_chunk_size} if chunked else {}
        features = ctx.encode(f"{stream}{point}", **options)
        return embed(features, self.similarity if learns else "cosine")

    def _positive(self, batch: Batch, rows: Tensor, total: int) -> Tensor:
        """Return `[B, N]` bool, the positives of each row; a row is its own positive."""
        column = self.columns_of["group"]
        if column is None:
            return positives(rows, total)
        cure = f"has no column {column!r} to be grouped by"
        return positives(rows, total, batch.label("group", cure) if len(batch) else rows)

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return each row's embeddings by stream: lists; see `similarity.to_json` for others."""
        rows = {n: to_json(self._vectors(batch, ctx, n), self.similarity) for n in self.embedded}
        return [{name: values[i] for name, values in rows.items()} for i in range(len(batch))]

    def metrics(self) -> Metrics:
        if self.scored:
            return ScoreMetrics(self.pairs, self.similarity, self.prefixes)
        return RetrievalMetrics(
            self.pairs, self.columns_of["match"], self.prefixes, self.similarity
        )

    def dataset_metrics(
        self, predictions: Sequence[Any], references: Sequence[Mapping[str, Any]], embed: Embed
    ) -> dict[str, float]:
        """Return `zero_shot_accuracy` and `zero_shot_chance`, if the recipe has `zero_shot`."""
        if self.zero_shot is None:
            return {}
        vectors = from_json([p[self.zero_shot.input] for p in predictions])
        return self.zero_shot.score(vectors, [r.get("label") for r in references], embed)

    def format_predictions(
        self,
        predictions: Sequence[Any],
        references: Sequence[Mapping[str, Any]],
        keys: Sequence[str],
    ) -> Sequence[Any]:
        """Return for each direction the rank of the right answer, and the rows that came first; of
        scored pairs their similarity."""
        metrics = self.metrics()
        metrics.update(predictions, references)
        assert isinstance(metrics, (RetrievalMetrics, ScoreMetrics))
        return metrics.answers(keys)

    def example_rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{}, {}]
        names = self.zero_shot.classes if self.zero_shot else None
        for i, row in enumerate(rows):
            texts = {self.columns_of["group"], self.columns_of["match"]} - {None}
            row.update({str(column): f"{column} {i}" for column in texts})
            if (label := self.columns_of["label"]) is not None:
                row[label] = (names or ["cat", "dog"])[-i]
            if (score := self.columns_of["score"]) is not None:
                row[score] = float(i) if self.scored else self.example_scores(i)
        return rows

    def example_scores(self, row: int) -> list[float]:
        """Return the scores of a row of `example_rows`, of its positive and its negatives."""
        return [1.0, 0.5 - row]


def group_hashes(batch: Batch) -> Tensor:
    """Return `[B]`, the hash of each row's group, 0 of a row without one."""
    if "group" in batch.labels:
        return batch.labels["group"]
    return torch.zeros(len(batch), dtype=torch.long)


def key_hashes(keys: Iterable[str]) -> Tensor:
    """Return `[B]`, the hash of each row's key."""
    return torch.tensor([stable_hash(key) for key in keys], dtype=torch.long)


def _numbers(value: Any, column: str) -> list[float]:
    """Return a cell of scores as a list. Raise ValueError if it is no number, nor a list of
    them."""
    values = value if isinstance(value, (list, tuple)) else [value]
    for number in values:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or number != number:
            raise ValueError(
                f"column {column!r}: found {number!r}, expected a number, or a list of numbers"
            )
    return [float(number) for number in values]


def _to_json(value: Any) -> Any:
    """Return a cell as JSON holds it: numpy scalars and arrays become Python's."""
    return value.tolist() if hasattr(value, "tolist") else value
