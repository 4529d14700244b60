"""A contrastive task with hard negatives, and vectors for its streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sensorium.modalities.base import Features
from sensorium.tasks.contrastive.contrastive import Contrastive
from sensorium.testing.context import StubContext, prepare_batch

ROWS, DIM, SCALE = 5, 8, 20.0
NAMES = ("query", "passage", "wrong", "worse")


def task_of(**options: Any) -> Contrastive:
    if options.get("loss") != "hinge":
        options.setdefault("temperature", 1 / SCALE)
    return Contrastive(streams=["query", "passage"], dim=DIM, **options)


def vectors_of(rows: int = ROWS, names: Sequence[str] = NAMES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(rows, DIM, generator=generator, requires_grad=True) for n in names}


def context(vectors: dict[str, Tensor]) -> StubContext:
    return StubContext({n: Features.dense(v[:, None], pooled=v) for n, v in vectors.items()})


def mean_loss(
    task: Contrastive,
    vectors: dict[str, Tensor],
    cells: Sequence[dict[str, Any]] = (),
    **items: list[int],
) -> Tensor:
    """cells: columns of the rows. items: numbers of items of streams of lists."""
    rows = len(vectors["query"])
    batch = prepare_batch(task, cells or [{}] * rows)
    batch.items = {name: torch.tensor(counts) for name, counts in items.items()}
    return task.loss(batch, context(vectors)).total / rows


class Precomputed(torch.nn.Module):
    """A SentenceTransformer's stand-in whose features are the vectors."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(features)

    def get_embedding_dimension(self) -> int:
        return DIM


def theirs(loss: str, vectors: Sequence[Tensor], labels: Any = None, **options: Any) -> Tensor:
    from sentence_transformers import losses

    module = getattr(losses, loss)(Precomputed(), **options)
    return module([{"sentence_embedding": v} for v in vectors], labels)
